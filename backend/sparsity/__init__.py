"""Mask policies: one file a family. Importing this package registers every method, without torch."""

from backend.sparsity import dense, dip, dip_ca, gate, glu, random_control, up
from backend.sparsity.policy import (
    METHODS,
    Activations,
    Context,
    Observer,
    Policy,
    Projection,
    Site,
    Tally,
    make_policy,
)

__all__ = [
    "METHODS",
    "Activations",
    "Context",
    "Observer",
    "Policy",
    "Projection",
    "Site",
    "Tally",
    "dense",
    "dip",
    "dip_ca",
    "gate",
    "glu",
    "make_policy",
    "random_control",
    "up",
]
