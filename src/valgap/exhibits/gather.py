"""Everything that a report shows beside the diagnosis, put together."""

from __future__ import annotations

from collections.abc import Mapping

from valgap.data.contents import is_address
from valgap.exhibits.answer import two_sentences
from valgap.exhibits.curves import accuracy_curves, data_size_curve, loss_curves
from valgap.exhibits.galleries import MAX_BYTES, Album, findings_galleries, mistakes, seen_galleries, stage_galleries
from valgap.exhibits.per_class import calibration, class_results, confusion
from valgap.exhibits.settings import settings_of
from valgap.types import CaseImages, Diagnosis, Exhibits


def gather(diagnosis: Diagnosis, remedies: Mapping[str, str] | None = None, max_bytes: int = MAX_BYTES) -> Exhibits:
    """What a report shows of this diagnosis; ``remedies`` holds code by the code of a cause.

    ``max_bytes`` bounds the pictures' text.

    Reads the pictures concerned from the paths in the record; what is no longer there is said on the page.
    """
    run = diagnosis.run
    album = Album(run, max_bytes, addresses(diagnosis.images).get)
    return Exhibits(
        answer=two_sentences(diagnosis),
        stages=stage_galleries(diagnosis, album),
        accuracy=accuracy_curves(run),
        loss=loss_curves(run),
        confusion=confusion(run),
        classes=class_results(run),
        calibration=calibration(run),
        data_size=data_size_curve(diagnosis),
        galleries=findings_galleries(diagnosis, album),
        seen=seen_galleries(run),
        mistakes=mistakes(run, album),
        remedies=dict(remedies or {}),
        settings=settings_of(run),
    )


def addresses(images: CaseImages | None) -> dict[str, str]:
    """Name -> where the image lies, of images that lie inside a container or elsewhere; empty for files of their names."""
    if images is None or not any(is_address(p) for p in images.rows.paths[:1]):
        return {}
    return dict(zip(images.rows.names, images.rows.paths, strict=True))
