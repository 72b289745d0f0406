"""Diagnosis -> Exhibits: the curves, tables and pictures that a report shows. Reports themselves compute nothing."""

from valgap.exhibits.gather import gather

__all__ = ["gather"]
