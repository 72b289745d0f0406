"""Validation images were taken in poor light and out of focus."""

from _program import main
from _scratch import classes, images, scratch_val
from PIL import Image, ImageEnhance, ImageFilter


def dark_and_blurred(data):
    folder = scratch_val()
    for val_class in classes(data, "val"):
        (folder / val_class.name).mkdir()
        for file in images(val_class):
            with Image.open(file) as image:
                spoiled = ImageEnhance.Brightness(image.convert("RGB")).enhance(0.4)
            radius = max(spoiled.size) / 120
            spoiled.filter(ImageFilter.GaussianBlur(radius)).save(folder / val_class.name / f"{file.stem}.jpg")
    return folder


if __name__ == "__main__":
    main(prepare_val=dark_and_blurred)
