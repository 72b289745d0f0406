"""Faults of the files themselves: the program is sound. Made by data.spoilt."""

from campaign.draft import Draft, NotHereError
from campaign.kind import Dose, Shelf

files = Shelf("files")


def spoil(p: Draft, how: str, **dose: object) -> Dose:
    p.files = (how, dose)
    return dict(dose)


@files("DAT104")
def files_in_other_train_folders(p: Draft) -> Dose:
    return spoil(p, "files_in_other_folders", split="train", share=p.rng.choice((0.3, 0.5, 0.7)))


@files("DAT105")
def files_in_other_val_folders(p: Draft) -> Dose:
    return spoil(p, "files_in_other_folders", split="val", share=p.rng.choice((0.15, 0.3, 0.5)))


@files("DAT102", "DAT104", "DAT105")
def folders_exchanged(p: Draft) -> Dose:
    return spoil(p, "folders_exchanged", split=p.rng.choice(("train", "val")), classes=p.rng.choice((2, 3, 6)))


@files("DAT107")
def few_files(p: Draft) -> Dose:
    return spoil(p, "few_files", full=0, images=p.rng.choice((1, 2, 4)))


@files("DAT103", "DAT107")
def rare_classes(p: Draft) -> Dose:
    full = 1 if p.base.setup.data == "bees" else p.rng.choice((1, 3, 6))
    return spoil(p, "rare_classes", full=full, images=p.rng.choice((1, 2, 3)))


@files("DAT108", "DAT106")
def train_files_spoilt(p: Draft) -> Dose:
    change = p.rng.choice(("black", "blurred", "compressed", "corner"))
    return spoil(p, "files_changed", split="train", share=p.rng.choice((0.8, 1.0)), change=change)


@files("DAT106", "DAT108")
def val_files_spoilt(p: Draft) -> Dose:
    change = p.rng.choice(("blurred", "compressed", "corner", "black"))
    return spoil(p, "files_changed", split="val", share=p.rng.choice((0.5, 1.0)), change=change)


@files("DAT106")
def val_in_other_light(p: Draft) -> Dose:
    return spoil(p, "files_changed", split="val", share=1.0, change=p.rng.choice(("dark", "pale", "grey")))


@files("DAT106", "PRE205")
def val_files_turned(p: Draft) -> Dose:
    return spoil(p, "files_changed", split="val", share=p.rng.choice((0.6, 1.0)), change=p.rng.choice(("turned", "upside down")))


@files("DAT109", "DAT107")
def files_repeated(p: Draft) -> Dose:
    return spoil(p, "files_repeated", images=p.rng.choice((1, 2, 3)))


@files("DAT110")
def files_marked(p: Draft) -> Dose:
    if p.base.setup.data == "cifar":
        raise NotHereError
    return spoil(p, "files_marked", part=p.rng.choice((2, 3)))
