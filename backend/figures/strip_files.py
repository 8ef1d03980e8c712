"""A generation as a file: a static page of its strips, LaTeX with coloured tokens, JSON, PNG."""

from __future__ import annotations

import html
import json
from dataclasses import asdict
from typing import Any

from backend.figures.drawing.scales import STOPS, colour_at, ink_on, limits, rgb_text
from backend.figures.drawing.text import short
from backend.figures.generations import (
    Colour,
    note_of,
    shown_tokens,
    side_label,
    strip_spec,
    summary,
    visible,
)
from backend.figures.heat_map import ColourScale
from backend.figures.paper import PaperFigure
from backend.figures.paper.files import drawn
from backend.figures.spec import FigureSpec
from backend.figures.tables.latex import latex_escape
from backend.figures.token_strip import TokenStrip
from backend.generations.request import DENSE
from backend.results.generations import Form, Generation, Side
from backend.results.queries import StoredRun

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font-family: sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; line-height: 1.7;
color: #161514; background: #fff; }}
p.text {{ white-space: pre-wrap; overflow-wrap: anywhere; }} span {{ border-radius: 3px; }}
pre {{ white-space: pre-wrap; overflow-wrap: anywhere; }}
</style></head><body>
{body}
</body></html>
"""


def specs_of(shown: Generation, form: Form, colour: Colour) -> list[FigureSpec]:
    """Return a strip a side that has tokens in this form, dense first."""
    return [strip_spec(shown, side, form, colour) for side in _with_tokens(shown, form)]


def to_html(shown: Generation, form: Form, colour: Colour, run: StoredRun) -> bytes:
    """Return the strips as one static HTML file; hovering over a token tells its value.

    Args:
        shown: The generation.
        form: Own texts, or the dense model's.
        colour: What colours the tokens.
        run: Its run.
    """
    parts = [
        f"<h1>{html.escape(shown.model)}</h1>",
        f"<pre>{html.escape(visible(shown.prompt))}</pre>",
        f"<p>{html.escape(note_of(shown, form))}</p>",
        legend_html(colour.scale),
    ]
    for side, spec in zip(_with_tokens(shown, form), specs_of(shown, form, colour), strict=True):
        assert spec.strip is not None
        parts.append(f"<h2>{html.escape(side_label(side))}</h2>")
        parts += [f"<p>{html.escape(summary(shown, side, form))}</p>", strip_html(spec.strip)]
    made = {"run": run.run_id, "settings": run.spec, "made with": _made_with(run)}
    parts.append(f"<h2>Made by</h2><pre>{html.escape(json.dumps(made, indent=1, sort_keys=True))}</pre>")
    return _PAGE.format(title="Generations", body="\n".join(parts)).encode()


def strip_html(strip: TokenStrip) -> str:
    """Return a strip as spans, its text escaped; a token's title tells its value."""
    low, high = limits(strip.scale, [strip.values])
    spans = []
    for token, value in zip(strip.tokens, strip.values, strict=True):
        text, look = html.escape(token), ""
        if value is not None:
            colour = colour_at(strip.scale.kind, (value - low) / (high - low))
            look = f' style="background:{rgb_text(colour)};color:{ink_on(colour)}" title="{short(value)}"'
        spans.append(f"<span{look}>{text}</span>")
    return f'<p class="text">{"".join(spans)}</p>'


def legend_html(scale: ColourScale) -> str:
    """Return a colour scale as a bar with its ends, its title, and the same in words for those who listen."""
    low, high = scale.range or (0.0, 1.0)
    stops = ",".join(STOPS[scale.kind])
    said = html.escape(f"{scale.title}: from {short(low)} to {short(high)}")
    pinned = " (beyond: the last colour)" if scale.range else ""
    return (
        f'<div role="img" aria-label="Colour scale. {said}" style="display:flex;flex-wrap:wrap;'
        f'align-items:center;gap:2px 8px;font-size:0.85rem"><span>{html.escape(scale.title)}{pinned}</span>'
        f'<span style="display:flex;align-items:center;gap:8px"><span>{short(low)}</span>'
        f'<span style="display:inline-block;width:140px;height:12px;border-radius:3px;'
        f'background:linear-gradient(90deg,{stops})"></span><span>{short(high)}</span></span></div>'
    )


def to_latex(shown: Generation, form: Form, colour: Colour) -> bytes:
    """Return the strips as LaTeX: coloured boxes that flow like text, to stand in any document.

    It needs ``xcolor`` only. A letter that pdflatex cannot write becomes a question mark.
    """
    lines = [
        r"% Needs \usepackage{xcolor}. Each token stands on the colour of its value.",
        r"\providecommand{\tok}[3]{{\setlength{\fboxsep}{1pt}\colorbox[RGB]{#1}{\strut\color[HTML]{#2}#3}}\allowbreak}",
    ]
    for side, spec in zip(_with_tokens(shown, form), specs_of(shown, form, colour), strict=True):
        strip = spec.strip
        assert strip is not None
        low, high = limits(strip.scale, [strip.values])
        said = f"{_ends_in_words(colour.scale)}; {summary(shown, side, form)}"
        lines += ["", rf"\paragraph{{{latex_escape(side_label(side))}.}} {latex_escape(said)}.\par"]
        lines.append(r"{\raggedright\ttfamily\small")
        for token, value in zip(strip.tokens, strip.values, strict=True):
            text = latex_escape(token.replace("\n", "").replace("\t", " ")).replace(" ", "~")
            if value is None or not text:
                lines.append(f"{text}%" if text else "%")
            else:
                shade = colour_at(strip.scale.kind, (value - low) / (high - low))
                ground = ",".join(f"{255 * part:.0f}" for part in shade)
                lines.append(rf"\tok{{{ground}}}{{{ink_on(shade)[1:]}}}{{{text}}}%")
            lines += [r"\par"] * token.count("\n")
        lines.append("}")
    return ("\n".join(lines) + "\n").encode()


def to_png(shown: Generation, form: Form, colour: Colour) -> bytes:
    """Return the strips as a figure for paper, one panel a side, at 300 dpi."""
    return drawn(PaperFigure.of(*specs_of(shown, form, colour), title="Generations"), "png")


def to_json(shown: Generation, run: StoredRun) -> bytes:
    """Return everything that is stored of a generation, and with what its run made it."""
    return (json.dumps(as_record(shown, run), allow_nan=False) + "\n").encode()


def as_record(shown: Generation, run: StoredRun) -> dict[str, Any]:
    """Return everything that is stored of a generation as plain values; arguments as for :func:`to_json`."""
    sides = [
        {
            **asdict(side),
            "label": side_label(side),
            "first_divergence": shown.divergence(side),
            "text": side.text("free"),
        }
        for side in shown.sides
    ]
    return {
        **asdict(shown),
        "sides": sides,
        "status": run.status,
        "settings": run.spec,
        "made_with": _made_with(run),
    }


def for_the_command_line(shown: Generation) -> dict[str, Any]:
    """Return what ``generate --json`` prints at its top level, of the policy, or of dense alone.

    ``text``, ``tokens`` (each: token, logprob, dense_logprob, kl, mlp_density), ``tokens_per_s``, ``form``
    ("forced" for an oracle, which has no text of its own), ``mean_kl`` and ``mean_kl_forced`` (over the
    decoded tokens: the first one comes from the prompt), ``first_divergence``, ``dense_text`` (a mixture's:
    by original routing), ``counted`` (a cache's hits, a mixture's misses, over the side's own tokens).
    """
    side = shown.sides[-1]
    form: Form = "forced" if side.no_text else "free"
    tokens = side.tokens.get(form, [])
    end = side.ends.get(form)
    return {
        "run": shown.run_id,
        "model": shown.model,
        "policy": side.policy,
        "settings": side.settings,
        "how": side.how,
        "execution": side.execution,
        "form": form,
        "text": side.text(form),
        "tokens": [
            {
                "token": token["text"],
                **{name: token[name] for name in ("logprob", "dense_logprob", "kl", "dense_rank")},
                "mlp_density": token["own"].get("mlp_density"),
            }
            for token in tokens
        ],
        "tokens_per_s": None if end is None else end.tokens_per_s,
        "mlp_density": None if end is None else end.mlp_density,
        "counted": {} if end is None else {name: value for name, (value, _) in end.counted.items()},
        "mean_kl": side.mean("kl", form),
        "mean_kl_forced": side.mean("kl", "forced"),
        "first_divergence": shown.divergence(side),
        "dense_text": shown.sides[DENSE].text("free"),
    }


def _with_tokens(shown: Generation, form: Form) -> list[Side]:
    return [side for side in shown.sides if shown_tokens(shown, side, form)]


def _made_with(run: StoredRun) -> dict[str, Any]:
    """Return a run's commit, packages and machine, without its process."""
    return {name: value for name, value in run.provenance.items() if name != "process"}


def _ends_in_words(scale: ColourScale) -> str:
    low, high = scale.range or (0.0, 1.0)
    return f"{scale.title}, from {short(low)} (first colour) to {short(high)} (last)"
