from __future__ import annotations

import json

import pandas as pd
import pytest

from backend.errors import UserError
from backend.figures import STYLES, FigureSpec, TradeOffOptions, at_cost, read_out, style_of, trade_off
from backend.figures.curves import curves, point_label
from backend.figures.drawing import marks
from backend.figures.findings import against_others, findings, within_budget
from backend.figures.metrics import ALL, QUALITY
from backend.figures.palette import COLOURS, DASHES, MARKERS
from backend.methods import every_method
from tests.figures.conftest import Sample


def test_every_method_has_a_look_of_its_own() -> None:
    styles = [style_of(name) for name in every_method()]
    assert len({(s.colour, s.marker, s.dash) for s in styles}) == len(every_method())
    assert style_of("dip").colour == "#0072B2"
    assert {s.colour for s in styles} <= set(COLOURS)
    assert set(MARKERS) == set(marks.MARKERS)
    assert set(DASHES) == set(marks.DASHES)


def test_a_new_method_gets_a_free_look(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("new_one", "new_two"):
        monkeypatch.setitem(every_method()._entries, name, every_method()["random"])
    new = [style_of("new_one"), style_of("new_two")]
    assert len({*new, *STYLES.values()}) == 2 + len(STYLES)


def test_a_spec_survives_json(sample: Sample) -> None:
    spec = trade_off(sample.points)
    assert FigureSpec.model_validate_json(spec.model_dump_json()) == spec


def test_the_csv_has_every_point(sample: Sample) -> None:
    spec = trade_off(sample.points)
    lines = spec.csv().decode().splitlines()
    assert len(lines) == 1 + sum(len(series.x) for series in spec.series)
    assert "Perplexity (lower is better), standard error" in lines[0]


def test_an_oracle_is_named_and_never_on_the_front(sample: Sample) -> None:
    spec = trade_off(sample.points)
    by_name = {series.name: series for series in spec.series}
    assert by_name["glu_oracle"].label == "GLU (oracle)"
    assert not any(by_name["glu_oracle"].faded)
    oracle = set(zip(by_name["glu_oracle"].x, by_name["glu_oracle"].y, strict=True))
    assert not oracle & set(zip(by_name["front"].x, by_name["front"].y, strict=True))


def test_a_control_is_named_and_never_on_the_front(sample: Sample) -> None:
    lucky = sample.points.copy()
    lucky.loc[lucky["policy"] == "random", ["perplexity", "mlp_density"]] = [1.0, 0.01]
    series = {each.name: each for each in trade_off(lucky).series}
    assert series["random"].label == "Random (control)"
    assert not any(series["random"].faded)
    assert 1.0 not in series["front"].y
    assert series["front"].y == next(s for s in trade_off(sample.points).series if s.name == "front").y


def test_the_front_runs_from_the_cheapest_to_the_dense_model(sample: Sample) -> None:
    front = next(s for s in trade_off(sample.points).series if s.name == "front")
    assert list(front.x) == sorted(front.x)
    assert list(front.y) == sorted(front.y, reverse=True)
    assert front.x[-1] == 1.0


def test_hiding_dominated_points_leaves_the_front(sample: Sample) -> None:
    shown = trade_off(sample.points, TradeOffOptions(dominated=False))
    assert not any(any(series.faded) for series in shown.series)
    whole = trade_off(sample.points)
    assert shown.series[0] == whole.series[0]


@pytest.mark.parametrize("quality", list(QUALITY))
@pytest.mark.parametrize("log", [False, True])
def test_axes_hold_still_whatever_is_shown(sample: Sample, quality: str, log: bool) -> None:
    for view in (*QUALITY[quality].views, ALL):
        one = trade_off(sample.points, TradeOffOptions(quality, methods=("dip",), view=view, log=log))
        other = trade_off(sample.points, TradeOffOptions(quality, dominated=False, view=view, log=log))
        assert (one.x, one.y) == (other.x, other.y)
        assert one.y.range is not None
        assert one.y.range[0] < one.y.range[1]


def test_points_outside_the_range_are_counted(sample: Sample) -> None:
    assert "outside the range" in trade_off(sample.points, TradeOffOptions(view="Near dense")).note
    assert "outside the range" not in trade_off(sample.points, TradeOffOptions(view=ALL)).note


def test_error_bars_of_perplexity_are_the_paired_ones(sample: Sample) -> None:
    dip = next(s for s in trade_off(sample.points).series if s.name == "dip")
    rows = sample.points.set_index("cell_id").loc[list(dip.ids)]
    assert list(dip.y_err) == pytest.approx(list(rows["perplexity"] * rows["delta_nll_stderr"]))


def test_an_unknown_metric_is_a_sentence(sample: Sample) -> None:
    with pytest.raises(UserError, match="did you mean 'perplexity'"):
        trade_off(sample.points, TradeOffOptions("perplexitty"))


def test_no_points_make_an_empty_figure(sample: Sample) -> None:
    spec = trade_off(sample.points.iloc[:0])
    assert spec.series == ()
    assert read_out(sample.points.iloc[:0], {}, 0.5) == []
    assert findings(sample.points.iloc[:0], {}) == []


def test_a_point_is_named_by_what_was_set() -> None:
    assert point_label("dip", '{"density":0.5}') == "DIP · density 0.5"
    assert point_label("random", '{"keep":0.5,"seed":0}') == "Random · keep 0.5"
    assert point_label("random", '{"keep":0.5,"seed":3}') == "Random · keep 0.5, seed 3"
    assert point_label("gone", '{"a":1}') == "gone · a 1"


def with_cache_aware(sample: Sample) -> pd.DataFrame:
    """Return the sample's points and DIP-CA with two sizes of cache, in the places of DIP's."""
    dip = sample.points[sample.points["policy"] == "dip"]
    caches = [
        dip.assign(
            policy="dip_ca",
            cell_id=[f"{cell}-{share}" for cell in dip["cell_id"]],
            settings=[
                json.dumps({"cache_share": share, **json.loads(given), "gamma": 0.3})
                for given in dip["settings"]
            ],
        )
        for share in (0.285, 0.39)
    ]
    return pd.concat([sample.points, *caches])


def test_variants_of_a_method_are_told_apart_without_colour_and_named_in_words(sample: Sample) -> None:
    spec = trade_off(with_cache_aware(sample))
    small, large = (series for series in spec.series if series.name.startswith("dip_ca"))
    assert [small.label, large.label] == ["DIP-CA, caches 28.5 %, γ 0.3", "DIP-CA, caches 39 %, γ 0.3"]
    assert small.style == style_of("dip_ca")
    assert large.style.colour == small.style.colour
    assert large.style.dash != small.style.dash
    assert large.style.marker != small.style.marker
    assert not large.style.marker.endswith(marks.OPEN), "open markers mean interpolated"
    assert small.details[0].startswith("DIP-CA · caches 28.5 %, density")


def test_variants_and_precisions_of_one_method_all_look_different(sample: Sample) -> None:
    points = with_cache_aware(sample)
    halves = points.assign(dtype="float16", cell_id=points["cell_id"] + "-half")
    looks = [curve.style for curve in curves(pd.concat([points, halves])) if curve.policy == "dip_ca"]
    assert len(set(looks)) == len(looks) == 4


def test_the_figure_at_one_cost_puts_the_best_on_top(sample: Sample) -> None:
    spec = at_cost(read_out(sample.points, sample.windows, 0.8), 0.8, "agreement", "mlp_density", 1.0)
    by_height = sorted(spec.series, key=lambda s: s.y[0])
    values = [s.x[0] for s in by_height]
    assert values == sorted(values)
    assert len(spec.y.ticks) == len(spec.series)


def test_findings_are_made_from_the_numbers(sample: Sample) -> None:
    found = findings(sample.points, sample.windows)
    assert [f.title for f in found] == ["Within +1 % of dense", "At equal density", "Room that is left"]
    dip = sample.points[(sample.points["policy"] == "dip") & (sample.points["mlp_density"] > 0.89)].iloc[0]
    rise = 100 * (2.718281828459045 ** dip["delta_nll"] - 1)
    assert f"{rise:+.2f}" in found[0].sentence
    assert "DIP loses" in found[1].sentence
    assert "GLU (oracle)" in found[2].sentence
    assert "Random" in found[2].sentence
    for finding in found:
        assert finding.spec.series
        assert finding.spec.provenance.runs


def test_findings_change_with_the_numbers(sample: Sample) -> None:
    points = sample.points.copy()
    before = findings(sample.points, sample.windows)[1].sentence
    worse = points["policy"] == "dip"
    windows = {m: v.copy() for m, v in sample.windows.items()}
    cells = list(points.loc[worse, "cell_id"])
    windows["delta_nll"].loc[cells] *= 20
    after = findings(points, windows)[1].sentence
    assert "less" in before
    assert "more" in after


def test_a_finding_says_which_of_its_numbers_are_interpolated(sample: Sample) -> None:
    """At 0.7 DIP alone was measured, at 0.85 nothing was."""
    finding = against_others(sample.points, sample.windows, (0.7, 0.85))
    assert finding is not None
    assert "At density 0.7, DIP loses" in finding.sentence
    assert "than Up pruning (interpolated), the best other. At density 0.85" in finding.sentence
    assert "At density 0.85, DIP (interpolated) loses" in finding.sentence


def test_a_budget_that_no_measured_point_keeps_is_said_to_be_so(sample: Sample) -> None:
    finding = within_budget(sample.points, 0.0001)
    assert finding is not None
    assert finding.sentence.startswith("No measured point of DIP stays within +0.01 %")
    assert "(interpolated)" in finding.sentence


def test_a_method_alone_has_no_rival(sample: Sample) -> None:
    alone = sample.points[sample.points["policy"].isin(["dip", "dense"])]
    assert [f.title for f in findings(alone, sample.windows)] == ["Within +1 % of dense"]
    assert [c.key for c in curves(alone)] == ["dip"]
