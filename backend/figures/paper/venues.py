"""Widths of figures by venue, in inches, as the venues' style files set them."""

from __future__ import annotations

from dataclasses import dataclass

from backend.registry import Registry


@dataclass(frozen=True)
class Venue:
    """Where a paper goes.

    Attributes:
        title: Its name for people.
        column_in: Width of one column, inches.
        page_in: Width of the whole page's text, inches; the same where there is one column.
    """

    title: str
    column_in: float
    page_in: float

    @property
    def has_columns(self) -> bool:
        """Whether a page has two columns."""
        return self.column_in != self.page_in


VENUES: Registry[Venue] = Registry("venue")
"""The venues in the order they are offered."""

for _name, _venue in {
    "neurips": Venue("NeurIPS", 5.5, 5.5),
    "icml": Venue("ICML", 3.25, 6.75),
    "iclr": Venue("ICLR", 5.5, 5.5),
    "aaai": Venue("AAAI", 3.3, 6.975),
    "cvpr": Venue("CVPR", 3.25, 6.875),
    "acl": Venue("ACL", 3.03, 6.3),
    "tmlr": Venue("TMLR", 6.5, 6.5),
}.items():
    VENUES.add(_name, _venue)
