"""Mask policies: one file a family. Importing this package registers every method, without torch."""

from backend.sparsity import (
    dense,
    dense_magnitude,
    dip,
    dip_ca,
    expected_fisher,
    gate,
    glu,
    label_attribution,
    prompt_attribution,
    random_control,
    up,
)
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
    "dense_magnitude",
    "dip",
    "dip_ca",
    "expected_fisher",
    "gate",
    "glu",
    "label_attribution",
    "make_policy",
    "prompt_attribution",
    "random_control",
    "up",
]
