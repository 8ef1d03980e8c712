"""Where the numbers of a routing's figures come from."""

from __future__ import annotations

from collections.abc import Iterable

from backend.experiments.routing_records import RoutingInfo
from backend.figures.moe.grid import GridPoint
from backend.figures.spec import Provenance

MEASURED = Provenance(how=("measured",))
"""Of numbers whose run is not known."""


def with_oracle(where: Provenance) -> Provenance:
    """Return where numbers come from, Belady's among them: it looks at the future, so it is an oracle."""
    return where.model_copy(update={"how": tuple(dict.fromkeys((*where.how, "oracle")))})


def origin_of(info: RoutingInfo, points: Iterable[GridPoint] = ()) -> Provenance:
    """Return where the numbers of a record, and of points beside it, come from.

    Args:
        info: The record.
        points: The points that are shown, that of the record among them.
    """
    said = info.description
    if info.imported:
        return Provenance(filters={"trace": info.imported, "sha256": str(said["sha256"])}, how=("measured",))
    named = ("model", "model_sha256", "text", "text_sha256")
    evaluation = {name: str(value) for name, value in said["evaluation"].items()}
    runs = {point.run_id for point in points}
    methods = {str(said["policy"]), *(point.policy for point in points)}
    return Provenance(
        runs=tuple(sorted(runs)),
        filters={**{name: str(said[name]) for name in named}, **evaluation},
        how=("measured",),
        methods=tuple(sorted(methods)),
    )
