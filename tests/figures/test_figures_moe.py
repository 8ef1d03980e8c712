"""Figures of mixtures of experts: their numbers against records and by hand, and that paper can draw them."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from backend.devices import DEVICES
from backend.errors import UserError
from backend.experiments.routing_records import import_trace, routing_records
from backend.figures import FigureSpec, matplotlib_renderer, plotly_renderer
from backend.figures.moe import (
    at_slots,
    balance_of,
    findings,
    layer_figure,
    lifetime_figure,
    miss_figure,
    model_label,
    quality_finding,
    routing_sources,
    speed_figure,
    stored_time,
    time_figure,
    time_of,
    traffic_map,
)
from backend.figures.moe.compared import exact_curves, fair_cost, placed_points, stored_lines
from backend.figures.moe.layers import policy_line, worst_layers
from backend.figures.moe.quality import Placed, quality_figure
from backend.figures.moe.times import TimeRow
from backend.figures.recipes import RECIPES, Stored
from backend.home import Home
from backend.methods import make_method
from backend.residency import EVICTIONS, ExpertTrace, RoutingRecord, lifetimes_in
from backend.results import Store
from backend.results.routing import layer_miss_rates, routing_points, store_speeds
from tests.figures.figures_samples import write_run
from tests.figures.moe_samples import (
    EXPERT_BYTES,
    EXPERTS,
    LABEL,
    LAMBDAS,
    LAYERS,
    MODEL,
    RUN,
    K,
    record,
    timed,
    trace_text,
    write_moe,
    write_speeds,
)


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("backend.home.SEED", tmp_path / "no-seed")
    monkeypatch.setattr("backend.experiments.routing_records.SEED", tmp_path / "no-seed")
    home = write_moe(Home.resolve(tmp_path / "home"))
    import_trace(home, "device.csv", trace_text().encode())
    store = Store.open(home)
    store.ingest()
    yield Stored(store, home)
    store.close()


def sources(stored: Stored):
    return routing_sources(routing_points(stored.store), routing_records(stored.home))


def load(info):
    return RoutingRecord.load(info.path)


def draws(spec: FigureSpec) -> None:
    """Both renderers draw it, and it survives JSON."""
    assert FigureSpec.model_validate_json(spec.model_dump_json()) == spec
    assert plotly_renderer.to_plotly(spec).data
    assert matplotlib_renderer.to_bytes(spec, "svg", width=5.5, height=3.4)
    assert spec.alt().startswith(spec.title)
    assert len(spec.frame())


def test_traffic_is_each_layers_share_and_even_traffic_has_entropy_one() -> None:
    even = RoutingRecord.of({2: ExpertTrace.from_lists([[0, 1], [2, 3]] * 3, 4)})
    spec = traffic_map(even, "x")
    assert spec.heat is not None
    assert spec.heat.values == ((25.0, 25.0, 25.0, 25.0),)
    balance = balance_of(even)
    assert (balance.entropy[0], balance.imbalance[0], balance.unused[0]) == (pytest.approx(1), 1, 0)
    one = balance_of(RoutingRecord.of({0: ExpertTrace.from_lists([[3]] * 5, 4)}))
    assert (one.entropy[0], one.imbalance[0], one.unused[0]) == (0, 4, 3)
    uneven = balance_of(RoutingRecord.of({0: ExpertTrace.from_lists([[0], [0], [0], [1]], 4)}))
    assert uneven.entropy[0] == pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) / math.log(4))


def test_sorted_traffic_falls_along_each_row_and_missing_experts_are_blank() -> None:
    mixed = RoutingRecord.of(
        {0: ExpertTrace.from_lists([[0], [1], [1]], 2), 1: ExpertTrace.from_lists([[3], [2], [2]], 4)}
    )
    spec = traffic_map(mixed, "x", by_load=True)
    assert spec.heat is not None
    assert [[None if v is None else round(v, 1) for v in row] for row in spec.heat.values] == [
        [66.7, 33.3, None, None],
        [66.7, 33.3, 0.0, 0.0],
    ]
    assert spec.heat.columns == ("1", "2", "3", "4")
    draws(spec)


def test_miss_rates_are_the_curves_at_every_size() -> None:
    made = record()
    spec = miss_figure("x", {rule: made.curve(rule) for rule in EVICTIONS})
    for series, rule in zip(spec.series, EVICTIONS, strict=True):
        assert list(series.x) == list(range(K, EXPERTS + 1))
        assert series.y == pytest.approx([100 * made.curve(rule).miss_rate(c) for c in range(K, EXPERTS + 1)])
    draws(spec)
    assert miss_figure("x", {"lru": made.curve("lru")}, log=True).y.range[0] > 0


def test_layers_and_the_worst_of_them() -> None:
    made = record()
    spec = layer_figure(made, "x", 8, "lru", "cold")
    lru, belady = spec.series
    assert lru.x == LAYERS
    assert belady.label == "Belady (oracle)"
    assert spec.provenance.how == ("measured", "oracle")
    assert all(b <= a for a, b in zip(lru.y, belady.y, strict=True))
    assert np.mean(lru.y) == pytest.approx(spec.baselines[0].value)
    assert worst_layers([0.1, 0.4, 0.4], (5, 6, 7), 2) == [(6, 0.4), (7, 0.4)]
    draws(spec)


def test_lifetimes_start_at_all_and_never_rise() -> None:
    made = record()
    found = {rule: lifetimes_in(made, 8, rule) for rule in ("lru", "lfu", "belady")}
    spec = lifetime_figure(found, "x", 8, made.tokens)
    for series in spec.series:
        assert series.y[0] == 100
        assert (np.diff(series.y) <= 1e-9).all()
    assert "censored" in spec.note
    assert spec.provenance.how == ("measured", "oracle")
    assert "the first" not in spec.note
    cut = lifetime_figure(found, "x", 8, 64, of=made.tokens)
    assert "over the first 64 of 256 tokens" in cut.note
    assert "knows the future, here only up to the cut after 64 tokens" in cut.note
    draws(spec)


def test_a_half_life_that_was_not_reached_is_beyond_what_was_followed() -> None:
    stays = RoutingRecord.of({0: ExpertTrace.from_lists([[0, 1]] * 6, 4)})
    (series,) = lifetime_figure({"lru": lifetimes_in(stays, 2, "lru")}, "x", 2, 6).series
    assert series.label == "LRU: half-life beyond what was followed"


def test_a_policys_layers_are_of_the_caches_that_are_asked_for(stored: Stored) -> None:
    measured, made = sources(stored)[0], record()

    def line(point, start="cold", slots=9):
        rates = partial(layer_miss_rates, stored.store)
        return policy_line(measured, point, made, slots, "lru", start, load, rates)

    two = next(point for point in measured.of("expert_pruning") if point.strength == 2)
    for start in ("cold", "warm"):
        expected = [record(2).curves[place, "lru", start].miss_rate(9) for place in range(len(LAYERS))]
        assert line(two, start).rates == pytest.approx(expected)
    (aware,) = (p for p in measured.of("cache_prior") if (p.strength, p.slots) == (0.3, 8))
    assert line(aware).label == "Cache-Prior, λ 0.3, 8 slots"
    assert line(aware).rates == [layer_miss_rates(stored.store, aware.cell_id)[layer] for layer in LAYERS]
    assert line(aware, "warm") is None  # it was measured from empty caches
    spec = layer_figure(made, "x", 9, "lru", "cold", stored=line(aware))
    assert "Cache-Prior, λ 0.3, 8 slots: measured with the cache it ran with" in spec.note
    draws(spec)


def test_a_token_s_time_is_bytes_over_bandwidth_and_a_wait_for_each_miss() -> None:
    made, device = record(), next(iter(DEVICES.values()))
    time = time_of(made, device, 8, "lru", "cold")
    curve = made.curve("lru")
    misses = curve.misses(8) / made.tokens
    flash = device.flash.gb_per_s(EXPERT_BYTES) * 1e9
    assert time.dense_s == pytest.approx(5e6 / (device.dram_gb_per_s * 1e9))
    assert time.experts_s == pytest.approx(K * len(LAYERS) * EXPERT_BYTES / (device.dram_gb_per_s * 1e9))
    assert time.misses_s == pytest.approx(misses * (EXPERT_BYTES / flash + device.flash.latency_us * 1e-6))
    assert time.seconds == pytest.approx(time.dense_s + time.experts_s + time.misses_s)
    together = time_of(made, device, 8, "lru", "cold", overlap=True)
    assert together.seconds == max(time.misses_s, time.dense_s + time.experts_s)
    spec = time_figure([TimeRow("LRU", time), TimeRow("both", together)], "x", device, 8)
    assert sum(series.x[0] for series in spec.series) == pytest.approx(1e3 * time.seconds)
    assert "simulated" in spec.x.title
    draws(spec)


def test_the_original_at_its_own_cache_has_one_time_however_it_is_asked_for(stored: Stored) -> None:
    """A measured point's figures, taken from the record, give the time that the record gives."""
    measured = sources(stored)[0]
    made, device = (
        load(measured.original),
        DEVICES["raspberry-pi-5-microsd"]
        if ("raspberry-pi-5-microsd" in DEVICES)
        else next(iter(DEVICES.values())),
    )
    found = stored_time(made, device, measured.original_point)
    expected = time_of(made, device, EXPERTS // 2, "lru", "cold")
    assert found.seconds == pytest.approx(expected.seconds)


def test_what_is_stored_is_found_by_model_and_trace(stored: Stored) -> None:
    measured, trace = sources(stored)
    assert (measured.label, trace.label) == (LABEL, "device.csv (imported trace)")
    assert measured.policies[0] == "original"
    assert measured.original.description["policy"] == "original"
    assert (trace.imported, trace.points, trace.original.experts) == (True, (), EXPERTS)
    aware = measured.of("cache_prior")
    assert {point.slots for point in aware} == {8, 12}
    assert {point.strength for point in aware} == set(LAMBDAS)
    assert measured.original_point.slots is None
    assert layer_miss_rates(stored.store, aware[0].cell_id).keys() == set(LAYERS)
    assert at_slots(aware, 11, "lru")[0].slots == 12
    assert at_slots(aware, 10, "lru")[0].slots == 8  # of two as near, the smaller
    assert at_slots(aware, 8, "lfu") == []


def test_quality_stands_against_misses_at_one_size(stored: Stored) -> None:
    measured = sources(stored)[0]
    placed = placed_points(measured, "miss_rate", 9, "lru", load)
    by_policy = {}
    for each in placed:
        by_policy.setdefault(each.point.policy, []).append(each)
    (original,) = by_policy["original"]
    assert original.cost == pytest.approx(100 * record().curve("lru").miss_rate(9))
    assert {each.point.slots for each in by_policy["cache_prior"]} == {8}
    assert [each.exact for each in by_policy["expert_pruning"]] == [True, True]
    loads = placed_points(measured, "misses_per_token", 8, "lru", load)
    spec = quality_figure(loads, "x", cost="misses_per_token", slots=8, rule="LRU", belady=12.0)
    front = next(series for series in spec.series if series.name == "front")
    costs = {each.point.cell_id: (each.cost, each.point.delta_nll.value) for each in loads}
    for x, y in zip(front.x, front.y, strict=True):
        assert not any((a <= x and b < y) or (a < x and b <= y) for a, b in costs.values())
    prior = next(series for series in spec.series if series.name == "cache_prior")
    assert prior.kind == "line"
    assert prior.y == pytest.approx([0.02 * strength**2 for strength in LAMBDAS])
    assert prior.y_err == (0.002,) * 3
    assert spec.baselines[0].value == 12.0
    assert spec.provenance.how == ("measured", "oracle")
    assert "oracle" in spec.note
    assert quality_figure(placed, "x", slots=9, rule="LRU").baselines == ()
    draws(spec)


def test_a_control_is_drawn_and_named_but_never_on_the_front(stored: Stored) -> None:
    loads = placed_points(sources(stored)[0], "misses_per_token", 8, "lru", load)
    original = next(each for each in loads if each.point.policy == "original")
    luck = replace(original.point, policy="random_swap", settings={"rank": 1}, cell_id="luck")
    without = quality_figure(loads, "x", cost="misses_per_token", slots=8, rule="LRU")
    drawn = quality_figure(
        [*loads, Placed(luck, 0.1, True)], "x", cost="misses_per_token", slots=8, rule="LRU"
    )
    control = next(series for series in drawn.series if series.name == "random_swap")
    assert control.label == "Random swap (control)"
    assert control.x == (0.1,), "better than all, and still no choice"
    assert control.faded == (False,)
    assert [s for s in drawn.series if s.name != "random_swap"] == list(without.series)


def test_quality_is_compared_with_the_original_routing_by_name(stored: Stored) -> None:
    loads = placed_points(sources(stored)[0], "misses_per_token", 8, "lru", load)
    spec = quality_figure(loads, "x", quality="kl", cost="misses_per_token", slots=8, rule="LRU")
    assert spec.y.label == "KL(original‖policy)"
    assert spec.title.startswith("KL(original‖policy) against")


def test_points_of_another_cache_than_the_figures_say_so(stored: Stored) -> None:
    measured = sources(stored)[0]
    placed = placed_points(measured, "misses_per_token", 9, "lru", load)
    spec = quality_figure(placed, "x", cost="misses_per_token", slots=9, rule="LRU")
    assert "measured with caches of 8 experts, the nearest stored" in spec.note
    same = placed_points(measured, "misses_per_token", 8, "lru", load)
    assert "nearest" not in quality_figure(same, "x", cost="misses_per_token", slots=8, rule="LRU").note


def test_a_panel_between_stored_sizes_stands_at_the_nearest_one(stored: Stored) -> None:
    settings = {"routing": MODEL, "slots": 9, "cost": "misses_per_token"}
    spec = RECIPES["routing_quality"].parse(settings, "panel").draw(stored)
    assert "caches of 8 experts" in spec.title
    assert "caches of 8 experts a layer, the stored size nearest to 9" in spec.note
    assert spec.baselines[0].value == pytest.approx(record().misses_per_token(8, "belady"))
    (own,) = (series for series in spec.series if series.name == "original")
    assert own.x == pytest.approx([record().misses_per_token(8, "lru")])


def test_miss_rates_of_unequal_k_make_no_front(stored: Stored) -> None:
    measured = sources(stored)[0]
    rates = placed_points(measured, "miss_rate", 8, "lru", load)
    spec = quality_figure(rates, "x", slots=8, rule="LRU")
    assert "front" not in {series.name for series in spec.series}
    assert not any(grey for series in spec.series for grey in series.faded)
    assert "Points use 2 to 4 experts a token in a layer" in spec.note
    assert fair_cost(measured, record()) == "miss_bytes_per_token"
    alike = [each for each in rates if each.point.policy != "expert_pruning"]
    assert "front" in {series.name for series in quality_figure(alike, "x", slots=8, rule="LRU").series}
    equal = replace(measured, points=tuple(each.point for each in alike))
    assert fair_cost(equal, record()) == "miss_rate"


def test_bytes_are_counted_where_k_differs(stored: Stored) -> None:
    measured = sources(stored)[0]
    placed = placed_points(measured, "miss_bytes_per_token", 9, "lru", load)
    own = next(each for each in placed if each.point.policy == "original")
    assert own.cost == pytest.approx(record().miss_bytes_per_token(9, "lru") / 1e6)


def test_a_record_made_without_a_rule_is_left_out_under_it(stored: Stored) -> None:
    measured = sources(stored)[0]

    def older(info):
        full = load(info)
        return replace(full, curves={key: each for key, each in full.curves.items() if key[1] != "random"})

    assert {each.exact for each in placed_points(measured, "miss_rate", 8, "random", load)} == {True}
    assert placed_points(measured, "miss_rate", 8, "random", older) == []
    assert exact_curves(measured, None, "random", older) == {}


def test_other_policies_stand_beside_the_original_one_each(stored: Stored) -> None:
    measured = sources(stored)[0]
    exact = exact_curves(measured, None, "lru", load)
    assert list(exact) == ["expert_pruning"]
    chosen = next(point for point in measured.of("expert_pruning") if point.strength == 2)
    name, curve = exact_curves(measured, chosen, "lru", load)["expert_pruning"]
    assert name == "Expert pruning, K' 2"
    assert curve.hits.tolist() == record(2).curve("lru").hits.tolist()
    ((policy, title, points),) = stored_lines(measured, None, "lru")
    assert (policy, title) == ("cache_prior", "Cache-Prior, λ 0.6")  # misses least within +1 % perplexity
    assert [point.slots for point in points] == [8, 12]
    spec = miss_figure("x", {"lru": record().curve("lru")}, others=exact, stored=[(policy, title, points)])
    assert "Routings here use 3 to 4 experts a token" in spec.note
    assert spec.provenance.how == ("measured",)
    draws(spec)
    alike = miss_figure("x", {"lru": record().curve("lru")}, stored=[(policy, title, points)])
    assert "Routings here use" not in alike.note
    bound = miss_figure("x", {rule: record().curve(rule) for rule in EVICTIONS})
    assert bound.provenance.how == ("measured", "oracle")


def test_findings_are_made_of_the_numbers(stored: Stored) -> None:
    made = record()
    sentences = " ".join(findings(made, 8, "lru", "cold"))
    assert f"LRU misses **{made.curve('lru').miss_rate(8):.1%}**" in sentences
    assert f"would miss {made.curve('belady').miss_rate(8):.1%}" in sentences
    measured = sources(stored)[0]
    own = made.curve("lru").miss_rate(8)
    found = quality_finding(at_slots(measured.points, 8, "lru"), own, 0.01)
    assert "**Cache-Prior, λ 0.6** brings the miss rate" in found
    assert "60% fewer loads" in found
    assert "above the 1.0% that Belady" in found
    assert quality_finding([], own, None) is None


def test_measured_speeds_stand_against_the_share_in_memory(stored: Stored) -> None:
    write_speeds(stored.home)
    stored.store.ingest()
    rows = store_speeds(stored.store)
    spec = speed_figure(rows, MODEL)
    prior, own = spec.series
    assert own.label == "Original routing, LRU"
    assert (own.x, own.y) == ((25.0, 50.0, 75.0), (10.0, 20.0, 30.0))
    assert own.y_err == pytest.approx((0.2, 0.4, 0.6))
    assert (prior.label, prior.y) == ("Cache-Prior, λ 0.3, LRU", (30.0,))
    resident, stock = spec.baselines
    assert (resident.value, resident.label) == (50.0, "all experts in memory")  # 20 ms
    assert (stock.value, stock.label) == (40.0, "transformers, all in memory")  # 25 ms
    assert "all K experts" not in spec.note
    assert "test processor" in spec.note
    draws(spec)


def test_speeds_timed_differently_share_no_line(stored: Stored) -> None:
    own = make_method("original", {})
    events = [
        timed(own, 0.25, 10.0, prompt=64),
        timed(own, 0.5, 10.0, resident_ms=40.0, prompt=64),  # a slow moment: its "all in memory" was slow too
        timed(own, 0.75, 20.0, prompt=256),
        timed(own, 0.75, 25.0, prompt=64, prefetch=True),
        timed(make_method("expert_pruning", {"experts": 2}), 0.5, 30.0, prompt=64),
    ]
    write_run(stored.home, [], "20260101-002200-test-moe-speed-0000", more=events)
    stored.store.ingest()
    spec = speed_figure(store_speeds(stored.store), MODEL)
    lines = {series.label: series for series in spec.series}
    assert set(lines) == {
        "Original routing, LRU, prompt 64",
        "Original routing, LRU, prompt 256",
        "Original routing, LRU, reading ahead, prompt 64",
        "Expert pruning, K' 2, LRU, prompt 64",
    }
    # The median of all in memory is 20 ms; in the slow cell 10 tokens/s were 0.4 of all in memory.
    assert lines["Original routing, LRU, prompt 64"].y == pytest.approx((10.0, 20.0))
    assert len(spec.baselines) == 4
    assert "with all K experts" in spec.note
    draws(spec)


def test_the_derived_model_is_called_so() -> None:
    assert model_label("smollm2-moe") == "smollm2-moe (derived from SmolLM2-135M)"
    assert model_label("other") == "other"


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("expert_traffic", {"by_load": True}),
        ("miss_curve", {}),
        ("miss_curve", {"scope": "global", "start": "warm", "rules": ("lru", "belady")}),
        ("expert_layers", {"slots": 8}),
        ("expert_lifetimes", {"start": "warm"}),
        ("routing_quality", {"slots": 8, "quality": "perplexity", "cost": "miss_bytes_per_token"}),
    ],
)
def test_every_kind_of_panel_can_be_composed(kind: str, settings: dict, stored: Stored) -> None:
    spec = RECIPES[kind].parse({"routing": MODEL, **settings}, kind).draw(stored)
    draws(spec)
    assert RUN in spec.provenance.runs
    assert spec.provenance.filters["model"] == MODEL


@pytest.mark.parametrize(
    ("kind", "settings", "sentence"),
    [
        ("miss_curve", {"routing": "devise.csv (imported trace)"}, "did you mean 'device.csv"),
        ("expert_layers", {"slots": 3}, "from 4 to 16 slots here, not 3"),
        ("routing_quality", {"routing": "device.csv"}, "an imported trace has none at all"),
        ("routing_quality", {"quality": "bleu_"}, "quality metric"),
        ("miss_curve", {"rules": ()}, "needs at least one of"),
    ],
)
def test_a_panel_that_cannot_be_drawn_is_a_sentence(
    kind: str, settings: dict, sentence: str, stored: Stored
) -> None:
    with pytest.raises(UserError, match=sentence):
        RECIPES[kind].parse(settings, kind).draw(stored)


def test_without_any_routing_a_panel_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.experiments.routing_records.SEED", tmp_path / "no-seed")
    monkeypatch.setattr("backend.home.SEED", tmp_path / "no-seed")
    home = Home.resolve(tmp_path / "home")
    store = Store.open(home)
    with pytest.raises(UserError, match="import-trace"):
        RECIPES["miss_curve"].parse({}, "panel").draw(Stored(store, home))
    store.close()
