"""The first class has no folder in val, so ImageFolder gives all other classes the index before."""

import shutil

from _program import main
from _scratch import classes, scratch_val


def without_first_class(data):
    folder = scratch_val()
    for val_class in classes(data, "val")[1:]:
        shutil.copytree(val_class, folder / val_class.name)
    return folder


if __name__ == "__main__":
    main(prepare_val=without_first_class)
