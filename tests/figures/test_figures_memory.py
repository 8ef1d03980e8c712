from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backend.devices import DEVICES, SHAPES, SimulatorSettings, footprint, simulator_of
from backend.experiments.recordings import load_recording, recordings
from backend.figures import matplotlib_renderer as paper
from backend.figures import plotly_renderer as screen
from backend.figures.headline import BUDGETS, headline, headline_density, paper_dram_gb
from backend.figures.memory import SpeedLine, hit_figure, speed_figure, time_figure
from backend.figures.memory_scene import Asked, Loaders, scene
from backend.figures.memory_sources import Source, Wanted, sources
from backend.figures.memory_subjects import Subject, cache_share_at, dram_of, from_point, wanted_point
from backend.home import Home
from backend.residency import Eviction
from backend.results import Store
from backend.sparsity import make_policy
from tests.figures.figures_samples import write_run
from tests.figures.memory_samples import CACHES, DENSITIES, SOURCE, aware_cell, aware_event, write_memory

PHI, A18, PAPER = SHAPES["phi-3-medium"], DEVICES["apple-a18"], SimulatorSettings.paper()

LOADERS = Loaders(load_recording, lambda info, rule: load_recording(info).hooks(rule))


def asked(policy: str, density: float, rule: Eviction, settings: SimulatorSettings) -> Asked:
    return Asked(A18, PHI, 4.0, policy, density, 0.3, rule, settings, log=True)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setattr("backend.home.SEED", tmp_path / "no-seed")
    monkeypatch.setattr("backend.experiments.recordings.SEED", tmp_path / "no-seed")
    return write_memory(Home.resolve(tmp_path / "home"))


@pytest.fixture
def source(home: Home) -> Source:
    with Store.in_memory(home) as store:
        (found,) = sources(store, recordings(home))
    return found


def test_a_source_has_recordings_points_and_losses(source: Source) -> None:
    assert source.label == SOURCE
    assert source.densities == list(DENSITIES)
    assert len(source.points) == 2 * 2 * len(CACHES)
    info = source.recording(0.74)
    assert info is not None
    quality = source.loss(info)
    assert quality is not None
    assert info.mlp_density == 0.7
    assert quality.delta_nll.value == pytest.approx(0.8 * 0.3**2, rel=0.1)
    assert quality.dense_perplexity == pytest.approx(quality.perplexity / np.exp(quality.delta_nll.value))


def test_the_nearest_point_is_near_in_every_setting(source: Source) -> None:
    point = source.nearest(Wanted(0.85, 0.25, 0.37, 0.37))
    assert point is not None
    assert (point.density, point.gamma, point.input_share, point.is_uniform) == (0.9, 0.3, 0.4, True)
    along = source.along_cache(0.9, 0.3, "lru")
    assert [each.input_share for each in along] == list(CACHES)


def test_the_wanted_point_is_the_share_that_fits(source: Source) -> None:
    asked = {"density": 0.5, "gamma": 0.3, "eviction": "lru"}
    uniform = wanted_point(source, A18, PHI, PAPER, 4.0, **asked)
    assert uniform.input_share == uniform.neuron_share == pytest.approx(cache_share_at(4.0, PHI, PAPER))
    better = wanted_point(source, A18, PHI, SimulatorSettings.paper(split="optimised"), 4.0, **asked)
    share = (2 * better.input_share + better.neuron_share) / 3
    assert share == pytest.approx(uniform.input_share, abs=0.005)
    assert better.settings()["density"] == 0.5


def test_a_point_is_simulated_with_its_own_caches(source: Source) -> None:
    point = source.nearest(Wanted(0.5, 0.3, 0.4, 0.4))
    assert point is not None
    dram = dram_of(point, PHI, PAPER)
    assert cache_share_at(dram, PHI, PAPER) == pytest.approx(0.4)
    found = from_point(point).simulator(A18, PHI, PAPER).curve(dram).at(0)
    assert found.cached_share_by_site == pytest.approx({"mlp_in": 0.4, "mlp_mid": 0.4}, abs=1e-3)
    for site, rate in point.hits.items():
        assert found.hit_rate_by_site[site] == pytest.approx(rate, abs=2e-3)


def test_the_headline_keeps_its_budgets_and_its_memory(source: Source) -> None:
    rows = headline(source, PHI, load_recording)
    assert len(rows) == 2 * 2 * 2 * len(BUDGETS)
    assert paper_dram_gb(PHI) == pytest.approx(4.0)
    for row in rows:
        if row.subject is None or row.result is None:
            missing = (row.policy, row.split) == ("dip_ca", "optimised")
            assert missing or (row.policy, row.budget) == ("dip", BUDGETS[0].label), "made-up DIP loses 0.15"
            continue
        budget = next(budget for budget in BUDGETS if budget.label == row.budget)
        assert row.subject.quality is not None
        assert budget.holds(row.subject.quality)
        assert row.result.memory_saved == pytest.approx(0.456, abs=1e-3)
    plain = {(row.split, row.overlap): row.result for row in rows if row.policy == "dip" and row.result}
    assert plain["optimised", False].tokens_per_s >= plain["uniform", False].tokens_per_s
    assert headline_density(source) == 0.9


def test_the_headline_takes_points_with_caches_of_their_own(home: Home) -> None:
    made = aware_cell(0.5, 0.6, 0.35, neuron_cache=0.45)
    write_run(home, [], "20260101-002000-test-memory-0001", more=[aware_event(made)])
    with Store.in_memory(home) as store:
        (source,) = sources(store, recordings(home))
    rows = [row for row in headline(source, PHI, load_recording) if row.policy == "dip_ca"]
    better = next(row for row in rows if row.split == "optimised" and not row.overlap)
    assert better.subject is not None
    assert better.subject.point is not None
    assert better.subject.point.input_share == 0.35
    assert better.subject.point.neuron_share == 0.45


def test_both_renderers_draw_the_same_data(source: Source) -> None:
    recording = load_recording(source.recordings[0])
    subject = Subject("DIP", make_policy("dip", {"density": 0.5}), 0.5, recorded=recording.hooks("lru"))
    simulator = subject.simulator(A18, PHI, PAPER)
    here, sizes = simulator.curve(4.0).at(0), np.linspace(1, 7, 20)
    dense = simulator_of(A18, PHI, make_policy("dense", {}), settings=PAPER).curve(sizes)
    lines = [SpeedLine.of("dip", "DIP", simulator.curve(sizes))]
    specs = [
        speed_figure(dense, lines, here, "dip", log=True, device=A18.title),
        hit_figure(recording, "cold", source.along_cache(0.5, 0.3, "lru"), here, "lru"),
    ]
    for spec in specs:
        axes = paper.to_figure(spec).axes[0]
        drawn = {container.get_label(): container.lines[0] for container in axes.containers}
        for trace, series in zip(screen.to_plotly(spec).data, spec.series, strict=True):
            assert list(trace.x) == pytest.approx(list(drawn[series.label].get_xdata()))
            assert list(trace.y) == pytest.approx(list(drawn[series.label].get_ydata()))
            assert list(trace.x) == list(series.x)


def test_dip_stands_beside_dip_ca_at_its_points_density_rule_and_split(source: Source) -> None:
    better = SimulatorSettings.paper(split="optimised")
    shown = scene(asked("dip_ca", 0.75, "lfu", better), source, LOADERS)
    plain = scene(asked("dip", 0.9, "lru", PAPER), source, LOADERS)
    assert shown is not None
    assert plain is not None
    aware, beside = shown.lines
    assert aware.mlp_density == beside.mlp_density == 0.9
    assert beside.tokens_per_s == plain.lines[0].tokens_per_s, "as recorded at 0.9, LRU, uniform split"
    assert "LRU" in beside.label
    assert shown.recording is not None
    assert shown.recording.info.mlp_density == 0.9


def test_a_point_with_caches_of_their_own_stands_beside_the_better_split(home: Home) -> None:
    made = aware_cell(0.5, 0.6, 0.36, neuron_cache=0.38)
    write_run(home, [], "20260101-002000-test-memory-0001", more=[aware_event(made)])
    with Store.in_memory(home) as store:
        (source,) = sources(store, recordings(home))
    better = SimulatorSettings.paper(split="optimised")
    shown = scene(replace(asked("dip_ca", 0.5, "lru", PAPER), gamma=0.6, dram_gb=3.9), source, LOADERS)
    plain = scene(asked("dip", 0.5, "lru", better), source, LOADERS)
    assert shown is not None
    assert plain is not None
    assert shown.subject.point is not None
    assert not shown.subject.point.is_uniform
    assert shown.lines[1].tokens_per_s == plain.lines[0].tokens_per_s


def test_a_figure_says_what_is_left_of_its_line_and_unequal_densities(source: Source) -> None:
    subject = from_point(source.points[0])
    here, sizes = subject.simulator(A18, PHI, PAPER).curve(4.0).at(0), np.linspace(1, 7, 5)
    dense = simulator_of(A18, PHI, make_policy("dense", {}), settings=PAPER).curve(sizes)

    def note(aware: float, plain: float) -> str:
        lines = [
            SpeedLine("dip_ca", "a", [1.0], [1.0], "line", aware),
            SpeedLine.of("dip", "b", dense, plain),
        ]
        return speed_figure(dense, lines, here, "dip_ca", log=True, device=A18.title).note

    assert "Left of the dashed line" in note(0.7, 0.7)
    assert "density" not in note(0.7002, 0.7001)
    assert note(0.7, 0.6).endswith("Not at equal MLP density; measured: DIP-CA 0.700, DIP 0.600.")


def test_bars_are_stacked_and_add_up(source: Source) -> None:
    subject = from_point(source.points[0])
    here = subject.simulator(A18, PHI, PAPER).curve(1.5).at(0)
    spec = time_figure(here, "dip_ca")
    assert {series.label for series in spec.series} >= {"MLP: Flash", "What should be resident: Flash"}
    for row, speed in ((0, here.dense_tokens_per_s), (1, here.tokens_per_s)):
        assert sum(series.x[row] for series in spec.series) == pytest.approx(1e3 / speed)
    bars = [patch for patch in paper.to_figure(spec).axes[0].patches if patch.get_width() > 0]
    ends = {y: max(b.get_x() + b.get_width() for b in bars if round(b.get_y() + 0.3) == y) for y in (0, 1)}
    assert ends[0] == pytest.approx(1e3 / here.tokens_per_s)
    figure = screen.to_plotly(spec)
    assert figure.layout.barmode == "stack"
    assert [list(trace.x) for trace in figure.data] == [list(series.x) for series in spec.series]
    assert paper.to_bytes(spec, "pdf") == paper.to_bytes(spec, "pdf")


def test_shares_of_the_model_are_the_papers_for_every_shape() -> None:
    for shape in SHAPES.values():
        total = footprint(shape, PAPER.precision, PAPER.sequence_tokens).total / 1e9
        assert 1 - paper_dram_gb(shape) / total == pytest.approx(0.456, abs=1e-3)
