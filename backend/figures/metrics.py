"""What can stand on an axis: the stored metrics with their names, units, directions and error bars."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pandas as pd

from backend.figures.heat_map import Better
from backend.registry import Registry


@dataclass(frozen=True)
class Metric:
    """A column of the store's points, and how it is shown.

    Attributes:
        name: The column.
        label: Its name for people.
        unit: Its unit as shown.
        better: Which direction is better.
        scale: Shown value over stored value (1e-6 shows bytes as megabytes).
        format: How a value is written, for ``str.format``.
        views: Named limits of the axis that are worth a closer look, the widest last. For perplexity they
            are factors of the dense model's.
        dense: The dense model's value where it is the same for every model and text.
    """

    name: str
    label: str
    unit: str
    better: Better
    scale: float = 1.0
    format: str = "{:.3f}"
    views: dict[str, float] = field(default_factory=dict)
    dense: float | None = None

    def values(self, points: pd.DataFrame) -> pd.Series:
        """Return the metric of each point, as it is shown."""
        return points[self.name].astype(float) * self.scale

    def errors(self, points: pd.DataFrame) -> pd.Series:
        """Return one standard error of each value.

        Perplexity's is that of the paired difference to the dense model, on the scale of perplexity
        (perplexity × stderr of ΔNLL): between the windows of a text perplexity varies far more than
        between methods, so its own error says nothing about a comparison of methods.
        """
        if self.name == "perplexity":
            return points["perplexity"].astype(float) * points["delta_nll_stderr"].astype(float)
        if f"{self.name}_stderr" in points:
            return points[f"{self.name}_stderr"].astype(float) * self.scale
        return pd.Series(math.nan, index=points.index)

    def show(self, value: float | None, stderr: float | None = None) -> str:
        """Return a value as text, "31.87 ± 0.21" with its standard error."""
        if value is None or math.isnan(value):
            return "–"
        text = self.format.format(value)
        return text if stderr is None or math.isnan(stderr) else f"{text} ± {self.format.format(stderr)}"


_NEAR, _MIDDLE, _WIDE = "Near dense", "Middle", "Wide"
ALL = "All"

QUALITY: Registry[Metric] = Registry("quality metric")
COST: Registry[Metric] = Registry("cost metric")

for _metric in (
    Metric(
        "perplexity", "Perplexity", "", "lower", format="{:.2f}", views={_NEAR: 1.1, _MIDDLE: 1.5, _WIDE: 3.0}
    ),
    Metric(
        "delta_nll",
        "ΔNLL to dense",
        "nats/token",
        "lower",
        format="{:.4f}",
        views={_NEAR: 0.1, _MIDDLE: 0.4, _WIDE: 1.1},
        dense=0.0,
    ),
    Metric(
        "kl",
        "KL(dense‖sparse)",
        "nats/token",
        "lower",
        format="{:.4f}",
        views={_NEAR: 0.1, _MIDDLE: 0.4, _WIDE: 1.1},
        dense=0.0,
    ),
    Metric(
        "agreement",
        "Top-1 agreement with dense",
        "share of tokens",
        "higher",
        views={_NEAR: 0.85, _MIDDLE: 0.7, _WIDE: 0.5},
        dense=1.0,
    ),
):
    QUALITY.add(_metric.name, _metric)

for _metric in (
    Metric("mlp_density", "MLP density", "share of MLP weights read", "lower"),
    Metric("model_density", "Model density", "share of all weights read", "lower"),
    Metric("bytes_per_token", "Weights read", "MB/token", "lower", scale=1e-6, format="{:.1f}"),
):
    COST.add(_metric.name, _metric)
