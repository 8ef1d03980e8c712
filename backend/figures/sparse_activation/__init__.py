"""Figures and sentences of the sparse-activation page; protocols and labels are never mixed in one series."""

from backend.figures.sparse_activation.alike import alike_map
from backend.figures.sparse_activation.claim_gap import claim_gap
from backend.figures.sparse_activation.labels import label_control
from backend.figures.sparse_activation.metric_curves import AXES, SHOWN, Across, metric_curves
from backend.figures.sparse_activation.protocols import PROTOCOLS, Protocol
from backend.figures.sparse_activation.stored import verdicts
from backend.figures.sparse_activation.variants import (
    LABELS,
    ROLES,
    UNITS,
    Role,
    Variant,
    variant_of,
    variants,
    with_variants,
)
from backend.figures.sparse_activation.verdict import Evidence, Verdict, answer, verdict

__all__ = [
    "AXES",
    "LABELS",
    "PROTOCOLS",
    "ROLES",
    "SHOWN",
    "UNITS",
    "Across",
    "Evidence",
    "Protocol",
    "Role",
    "Variant",
    "Verdict",
    "alike_map",
    "answer",
    "claim_gap",
    "label_control",
    "metric_curves",
    "variant_of",
    "variants",
    "verdict",
    "verdicts",
    "with_variants",
]
