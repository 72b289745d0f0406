"""Images of one side lie on their side, or upside down.

What it looks for
    Images as the network was given them, against the same files read upright (with the rotation that EXIF asks for) and
    turned by one, two and three quarters: under which turn most of them fit their file best, on the features of a pretrained
    network; and what that costs a probe.

Why it hurts validation
    Few things look the same on their side. A network that learned upright pictures does not know them.

What else looks like this
    Random rotations as augmentation turn some of the images, not most of them by the same angle. Axes that are exchanged also
    mirror the picture. Files that are stored turned and read alike on both sides cost less, and are not told.

Remedy
    Read both sides in the same way: ImageOps.exif_transpose with Pillow (cv2.imread applies EXIF by itself), and height
    before width in arrays.

Source
    ultralytics issue 23630 (EXIF rotation applied by one reader only).
"""

from __future__ import annotations

from valgap.checks.shared.stage_faults import of_kind, treatment_of_kind
from valgap.types import Case, Check, Clear, Finding, Intervention, NotApplicable, Untreatable

REMEDY = "read both sides in the same way: ImageOps.exif_transpose with Pillow (cv2.imread turns by itself), height before width"


def detect(case: Case) -> Finding | Clear | NotApplicable:
    """Ask for the comparison of the stage, and for this kind of fault in it."""
    return of_kind(case, ("read_val", "read_train"), "turned", REMEDY, "images reach the network upright")


def treat(case: Case, finding: Finding) -> Intervention | Untreatable:
    """The reference of the stage in its place."""
    return treatment_of_kind(case, ("read_val", "read_train"), "turned")


CHECK = Check(code="PRE210", name="turned_images", stage="read_val", detect=detect, doc=__doc__ or "", treat=treat)
