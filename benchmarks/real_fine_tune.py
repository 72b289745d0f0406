"""fastai's documented way in ten lines: folders, a pretrained network, `fine_tune`. Their own examples hold no script of it."""

import sys

from fastai.vision.all import ImageDataLoaders, Resize, accuracy, resnet18, set_seed, vision_learner

set_seed(1, reproducible=True)
loaders = ImageDataLoaders.from_folder(sys.argv[1], valid="val", item_tfms=Resize(64), bs=16, num_workers=0)
learner = vision_learner(loaders, resnet18, metrics=accuracy)
learner.fine_tune(int(sys.argv[2]), float(sys.argv[3]) if len(sys.argv) > 3 else 2e-3)
