"""Numbers and times as people read them."""

from __future__ import annotations

from datetime import UTC, datetime

from backend.evaluation.statistics import Estimate
from backend.figures import Metric, relative


def with_error(found: Estimate | None, form: str = "{:.4f}", sign: bool = False) -> str:
    """Return an estimate as "0.2083 ± 0.0114"; a dash if there is none."""
    if found is None:
        return "–"
    value = ("+" if sign and found.value >= 0 else "") + form.format(found.value)
    value = value.replace("-", "−")
    return value if found.stderr is None else f"{value} ± {form.format(found.stderr)}"


def as_rise(delta_nll: Estimate | None) -> str:
    """Return a difference of NLL as a rise of perplexity: "+1.3 ± 0.2 %"."""
    if delta_nll is None:
        return "–"
    rise = relative(delta_nll)
    percent = Estimate(100 * rise.value, None if rise.stderr is None else 100 * rise.stderr, rise.n)
    return f"{with_error(percent, '{:.2f}' if abs(percent.value) < 10 else '{:,.0f}', sign=True)} %"


def shown(metric: Metric, found: Estimate | None) -> str:
    """Return a metric's estimate in the metric's own format."""
    return "–" if found is None else metric.show(found.value, found.stderr)


def quoted(value: str) -> str:
    """Return what stands in the address as Markdown that shows it and does nothing: a span of code.

    Backticks, which would end the span, are left out, and so is what is beyond 80 characters.
    """
    told = " ".join(value.replace("`", "").split())
    return f"`{told if len(told) <= 80 else told[:79] + '…'}`" if told else "(nothing)"


def duration(seconds: float | None) -> str:
    """Return a time span: "40 s", "12 min", "3 h 5 min"."""
    if seconds is None:
        return "unknown"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def size(bytes_: float) -> str:
    """Return bytes as people read them, in decimal units: "1.25 GB", "13.2 MB", "82.9 kB"."""
    if bytes_ >= 1e9:
        return f"{bytes_ / 1e9:.2f} GB"
    return f"{bytes_ / 1e6:.3g} MB" if bytes_ >= 1e6 or not bytes_ else f"{bytes_ / 1e3:.3g} kB"


def ago(moment: datetime | None) -> str:
    """Return how long ago a moment (UTC, without a zone) was: "5 min ago"."""
    if moment is None or moment != moment:  # NaT is unequal to itself
        return "–"
    seconds = (datetime.now(UTC).replace(tzinfo=None) - moment).total_seconds()
    if seconds < 10:
        return "just now"
    return f"{duration(seconds)} ago" if seconds < 36 * 3600 else moment.strftime("%d %b %Y")
