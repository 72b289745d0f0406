"""All kinds of hostile inputs, in the order in which they are tried."""

from __future__ import annotations

from hostile import asked, containers, pictures, records, texts
from hostile.trial import Kind

KINDS: tuple[Kind, ...] = (*pictures.KINDS, *texts.KINDS, *containers.KINDS, *asked.KINDS, *records.KINDS)
