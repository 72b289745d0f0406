"""Going through suspect images by keyboard, on a page that only this machine can reach. Images are never touched."""

from valgap.review.decisions import Decision, Decisions
from valgap.review.server import ReviewServer
from valgap.review.suspects import Suspect, suspects_of

__all__ = ["Decision", "Decisions", "ReviewServer", "Suspect", "suspects_of"]
