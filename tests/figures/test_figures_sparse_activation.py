"""The sparse-activation page's figures and verdict, on made-up points."""

from __future__ import annotations

import json
from dataclasses import replace

import pandas as pd
import pytest

from backend.errors import UserError
from backend.evaluation.statistics import estimate
from backend.figures import style_of, trade_off
from backend.figures.matplotlib_renderer import to_figure
from backend.figures.plotly_renderer import to_plotly
from backend.figures.sparse_activation import (
    Evidence,
    Variant,
    alike_map,
    answer,
    claim_gap,
    label_control,
    metric_curves,
    variants,
    verdict,
    with_variants,
)
from backend.figures.speed import with_speed
from backend.sparsity import METHODS, make_policy

WRONG = {"own": 0, "second": -60, "random": -50}
VALUES = {
    ("corrected_gxo", label, keep): [96 + change + place for place in (-1.0, 0.0, 1.0, 0.5)]
    for label, change in WRONG.items()
    for keep in (0.2, 0.5)
}
VALUES |= {("dense_magnitude", "", keep): [30.0, 28.0, 33.0, 29.0] for keep in (0.2, 0.5)}
VALUES |= {("prompt_attribution", "", 0.5): [6.0, 5.0, 7.0, 6.0]}
CELLS = {key: f"cell-{place}" for place, key in enumerate(VALUES)}


def points() -> pd.DataFrame:
    rows = []
    for (policy, label, keep), values in VALUES.items():
        made = make_policy(policy, {"keep": keep} | ({"label": label} if label else {}))
        found = estimate(values, [1] * len(values))
        rows.append(
            {
                "cell_id": CELLS[policy, label, keep],
                "run_id": "run-of-test-data",
                "model": "test-model",
                "model_sha256": "m" * 64,
                "text": "made-up",
                "text_sha256": "t" * 64,
                "evaluation": "{}",
                "dtype": "float32",
                "policy": policy,
                "settings": json.dumps(made.canonical()),
                "bleu": found.value,
                "bleu_stderr": found.stderr,
                "how": made.how,
            }
        )
    return pd.DataFrame(rows)


def values(cells: list[str], metric: str) -> pd.DataFrame:
    assert metric == "bleu"
    keys = {cell: key for key, cell in CELLS.items()}
    return pd.DataFrame([VALUES[keys[cell]] for cell in cells], index=cells)


def evidence() -> Evidence:
    return Evidence("forced answers", "bleu", points(), values)


def test_each_label_is_a_series_of_its_own_and_says_which():
    spec = metric_curves(points(), "bleu", "answers, forced")
    names = [series.name for series in spec.series]
    assert len(set(names)) == len(names) == 5
    labels = {series.name: series.label for series in spec.series}
    assert labels["corrected_gxo[label=own]"] == "Corrected GxO (oracle label: own greedy token)"
    assert "wrong label" in labels["corrected_gxo[label=second]"]
    assert "label-free oracle" in labels["dense_magnitude"]
    assert labels["prompt_attribution"] == "Prompt attribution"
    only = metric_curves(points(), "bleu", "", roles=("realisable",))
    assert [series.name for series in only.series] == ["prompt_attribution"]
    assert spec.provenance.how == ("measured", "oracle")
    with pytest.raises(UserError, match="did you mean 'bleu'"):
        metric_curves(points(), "blue", "")


def test_values_and_error_bars_are_the_stored_ones():
    series = {s.name: s for s in metric_curves(points(), "bleu", "").series}["corrected_gxo[label=own]"]
    found = estimate(VALUES["corrected_gxo", "own", 0.2], [1] * 4)
    assert series.x == (0.2, 0.5)
    assert series.y[0] == pytest.approx(found.value)
    assert series.y_err[0] == pytest.approx(found.stderr)


def test_no_two_methods_and_labels_look_alike():
    labelled = [name for name, method in METHODS.items() if not method.label_free]
    every = [Variant(name, label) for name in labelled for label in ("own", "next", "second", "random")]
    every += [Variant(name) for name in METHODS if name not in labelled]
    styles = [each.style for each in every]
    assert len(set(styles)) == len(styles)
    assert len({style_of(name) for name in METHODS}) == len(METHODS)


def test_the_label_control_has_a_row_a_label_and_the_dense_line():
    spec = label_control(points(), "bleu", 0.2)
    assert [s.name for s in spec.series] == [
        "corrected_gxo[label=own]",
        "corrected_gxo[label=random]",
        "corrected_gxo[label=second]",
        "dense_magnitude",
    ]
    assert [tick for tick, _ in spec.y.ticks] == [0, 1, 2, 3]
    assert spec.baselines[0].axis == "x"


def test_two_masks_of_one_label_have_rows_that_tell_them_apart():
    made = make_policy("corrected_gxo", {"keep": 0.2, "ranking": "global"}).canonical()
    whole = points().iloc[:1].assign(settings=json.dumps(made), cell_id="cell-global")
    spec = label_control(pd.concat([points(), whole]), "bleu", 0.2)
    names = [name for _, name in spec.y.ticks]
    assert len(set(names)) == len(names) == 5
    assert "Oracle label: own greedy token" in names
    assert "Own token, ranked over all layers" in names
    assert "masks of Corrected GxO" in spec.note
    assert any("ranked over all layers" in series.label for series in spec.series)
    assert not any("ranking=" in series.label + "".join(series.details) for series in spec.series)


def test_the_verdict_is_made_of_the_stored_values():
    found = verdict(evidence())
    assert found is not None
    assert found.loss.value == pytest.approx(1 - 96.125 / 100)
    assert found.gap.value == pytest.approx(found.loss.value - 0.05)
    assert found.wrong["second"].value == pytest.approx(1 - 36.125 / 100)
    assert found.label_share["second"].value == pytest.approx(60 / 96.125)
    assert found.label_free is not None
    assert found.label_free.value == pytest.approx(0.7)
    assert "loses 3.9 ± 0.4 % of BLEU" in found.sentence
    assert "n = 4" in found.sentence
    said = answer([found], "test-model")
    assert said.startswith(
        "On test-model, “80 % sparsity at under 5 % loss” holds in forced answers (loss 3.9"
    )
    assert "62.4" in said


@pytest.mark.parametrize(
    ("own", "holds"),
    [([99.0, 98.0, 98.5, 99.5], True), ([70.0, 72.0, 74.0, 71.0], False), ([90.0, 99.0, 97.0, 94.0], None)],
)
def test_a_claim_is_decided_two_standard_errors_from_the_limit(own, holds, monkeypatch):
    monkeypatch.setitem(VALUES, ("corrected_gxo", "own", 0.2), own)
    found = verdict(evidence())
    assert found is not None
    assert found.holds is holds


def test_what_was_not_measured_is_not_said():
    rest = points()
    rest = rest[rest["policy"] != "corrected_gxo"]
    assert verdict(Evidence("forced answers", "bleu", rest, values)) is None
    assert "Nothing is stored" in answer([], "test-model")


def test_the_heat_map_has_a_row_a_metric_and_a_column_a_layer():
    rows = points().iloc[:2].drop(columns=["bleu", "bleu_stderr"])
    long = pd.concat(
        [rows.assign(layer=layer, value=0.5 + layer / 10, stderr=0.01, n=64) for layer in (0, 1)]
    )
    spec = alike_map(long, "rank_correlation")
    assert spec.heat is not None
    assert spec.heat.columns == ("0", "1")
    assert spec.heat.values == ((0.5, 0.6),)
    assert "at most 0.010" in spec.note
    assert spec.provenance.methods == ("corrected_gxo",)


def test_every_figure_can_be_drawn_for_screen_and_paper():
    for spec in (metric_curves(points(), "bleu", ""), label_control(points(), "bleu", 0.2)):
        assert to_plotly(spec).data
        assert to_figure(spec).axes


def test_variants_of_one_method_are_told_apart_by_all_but_the_share():
    rows = pd.DataFrame(
        {
            "policy": ["prompt_attribution"] * 3 + ["dip"],
            "settings": [
                json.dumps(make_policy("prompt_attribution", given).canonical())
                for given in ({"keep": 0.2}, {"keep": 0.5}, {"keep": 0.2, "metric": "magnitude"})
            ]
            + [json.dumps({"density": 0.5})],
        }
    )
    found = with_variants(rows)
    assert found["keep"].tolist() == [0.2, 0.5, 0.2, 0.5]
    keys = [each.key for each in variants(found)]
    assert sorted(keys) == ["dip", "prompt_attribution", "prompt_attribution[metric=magnitude]"]


def test_no_oracle_enters_the_front_of_trade_offs():
    """Each oracle is made better and cheaper than everything; the front has the realisable point alone."""
    rows = []
    for name, method in METHODS.items():
        policy = method() if name == "dense" else method.at_density(0.9)
        rows.append(
            {
                "cell_id": name, "run_id": "r", "policy": name, "policy_version": 1, "model": "m",
                "model_sha256": "m", "text": "t", "text_sha256": "t", "tokens": 8, "window": 4, "stride": 4,
                "dtype": "float32", "settings": json.dumps(policy.canonical()), "how": policy.how,
                "mlp_density": 0.2 if policy.how == "oracle" else 0.5,
                "model_density": 0.5, "bytes_per_token": 1.0,
                "perplexity": 10.0 if policy.how == "oracle" else 20.0, "delta_nll_stderr": 0.0,
                "delta_nll": 0.0, "kl": 0.0, "agreement": 1.0, "nll": 1.0,
            }
        )  # fmt: skip
    spec = trade_off(with_speed(pd.DataFrame(rows), pd.DataFrame(), None))
    (front,) = [series for series in spec.series if series.name == "front"]
    assert set(front.x) == {0.5}
    oracles = [name for name in METHODS if name in ("gxo", "corrected_gxo", "dense_magnitude", "snip")]
    labels = {series.name: series.label for series in spec.series}
    assert all("oracle" in next(v for k, v in labels.items() if k.startswith(name)) for name in oracles)


def test_the_gap_to_the_claim_has_a_row_a_protocol_and_the_claims_line():
    found = verdict(evidence())
    spec = claim_gap([found, replace(found, protocol="free answers")], "test-model")
    losses = {series.name: series for series in spec.series}
    own = losses["corrected_gxo[label=own]"]
    assert own.x == pytest.approx((3.875, 3.875))
    assert own.x_err[0] == pytest.approx(100 * found.loss.stderr)
    assert losses["corrected_gxo[label=second]"].x[0] == pytest.approx(63.875)
    assert losses["dense_magnitude"].x[0] == pytest.approx(70)
    (claim,) = spec.baselines
    assert (claim.value, claim.label, claim.axis) == (5, "5 %, the claim", "x")
    names = [text for _, text in spec.y.ticks]
    assert names == [
        f"{protocol}: own token" if kind == "own" else kind
        for protocol in ("Forced answers", "Free answers")
        for kind in ("own", "second choice", "random token", "magnitude")
    ]
    assert spec.y.ticks[0][0] == own.y[0] == 7, "the first protocol is on top"
    assert len({y for series in spec.series for y in series.y}) == 8, "no two points lie on each other"
    assert spec.provenance.runs == ("run-of-test-data",)


def test_protocols_are_grouped_by_what_they_say(monkeypatch):
    held = verdict(evidence())
    monkeypatch.setitem(VALUES, ("corrected_gxo", "own", 0.2), [70.0, 72.0, 74.0, 71.0])
    lost = verdict(evidence())
    said = answer([held, lost, lost], "test-model")
    assert "does not hold in forced answers (loss 28.3 ± 0.9 %) and forced answers (loss 28.3" in said
    assert "; it holds in forced answers (loss 3.9" in said
    assert "a mask made for the dense model's second choice loses 62.4" in said
    assert ", one made for a random token loses" in said


def test_heads_and_both_are_series_of_their_own():
    settings = [make_policy("snip", {"keep": 0.2, "units": units}).canonical() for units in ("mlp", "heads")]
    rows = points().iloc[:2].assign(policy="snip", settings=[json.dumps(each) for each in settings])
    both = metric_curves(rows, "bleu", "")
    assert [series.name for series in both.series] == ["snip[label=own]", "snip[label=own, units=heads]"]
    assert both.series[0].style != both.series[1].style
    assert "attention heads" in both.series[1].label
    only = metric_curves(rows, "bleu", "", units="heads")
    assert [series.name for series in only.series] == ["snip[label=own, units=heads]"]
