"""All kinds: of faults, of sound habits, and of the faults of strangers that are kept apart."""

from __future__ import annotations

from campaign import kinds_read
from campaign.kind import Kind
from campaign.kinds_choose import choose
from campaign.kinds_draw import draw
from campaign.kinds_files import files
from campaign.kinds_forward import forward
from campaign.kinds_loss import loss
from campaign.kinds_measure import measure
from campaign.kinds_neighbours import early
from campaign.kinds_neighbours_late import late
from campaign.kinds_pair import pair
from campaign.kinds_sound import sound
from campaign.kinds_update import update

FAULTS: tuple[Kind, ...] = (
    *files.kinds, *draw.kinds, *pair.kinds, *kinds_read.kinds(), *forward.kinds, *loss.kinds, *update.kinds, *choose.kinds,
    *measure.kinds,
)  # fmt: skip
HABITS: tuple[Kind, ...] = tuple(sound.kinds)
NEIGHBOURS: tuple[Kind, ...] = (*early(), *late())
BY_NAME = {k.name: k for k in (*FAULTS, *HABITS)}
