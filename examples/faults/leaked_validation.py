"""Half of the validation images are copies of training images under other names."""

import shutil

from _program import main
from _scratch import classes, images, scratch_val


def leaked(data):
    folder = scratch_val()
    for train_class, val_class in zip(classes(data, "train"), classes(data, "val")):
        target = folder / val_class.name
        target.mkdir()
        own = images(val_class)
        for file in own[::2]:
            shutil.copy(file, target / file.name)
        for number, file in enumerate(images(train_class)[: len(own) // 2]):
            shutil.copy(file, target / f"photo_{number:04d}{file.suffix}")
    return folder


if __name__ == "__main__":
    main(prepare_val=leaked)
