"""What the page "Sparse activation" could show and is not stored: the sweep that makes it, and a button."""

from __future__ import annotations

from pages._shared.activation_data import Model, coverages
from pages._shared.store import OpenStore
from pages._shared.sweep_offer import offer_sweeps


def missing(opened: OpenStore, model: Model) -> None:
    """Show each sweep of this page that is not wholly stored for a model."""
    note = "Questions and WikiText-2 are read from the data root."
    offer_sweeps(opened, model.name, coverages(opened, model), note)
