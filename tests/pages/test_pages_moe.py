from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from backend.experiments.routing_records import import_trace, routing_records, save_routing_record
from backend.figures.moe import RULES_SHOWN
from backend.home import Home
from backend.residency import ExpertTrace, RoutingRecord, as_record, parse_route_trace
from pages._shared import moe_data
from tests.figures.moe_samples import EXPERTS, LABEL, LAYERS, record, trace_text, write_moe
from tests.pages.conftest import Open

PAGE = "mixture_of_experts"


@pytest.fixture(autouse=True)
def no_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.experiments.routing_records.SEED", tmp_path / "no-seed")
    monkeypatch.setattr("pages._shared.moe_data.SEED", tmp_path / "no-seed")


@pytest.fixture
def moe_home(empty_home: Home) -> Iterator[Home]:
    yield write_moe(empty_home)
    st.cache_resource.clear()


@pytest.fixture
def trace_home(empty_home: Home) -> Iterator[Home]:
    import_trace(empty_home, "device.csv", trace_text().encode())
    yield empty_home
    st.cache_resource.clear()


def metrics(page: AppTest) -> dict[str, str]:
    return {metric.label: metric.value for metric in page.metric}


def said(page: AppTest) -> str:
    return " ".join(element.value for element in [*page.markdown, *page.caption, *page.info])


def upload(page: AppTest, name: str, content: bytes) -> AppTest:
    return page.file_uploader(key="trace_file").upload(name, content, "text/csv").run()


def test_an_empty_store_offers_ways_to_begin(empty_home: Home, open_page: Open) -> None:
    page = open_page(PAGE)
    assert "Nothing is stored yet" in said(page)
    assert page.file_uploader(key="trace_file")
    assert "smollm2-moe (derived from SmolLM2-135M)" in said(page)
    assert page.button(key="run_moe-grid")
    assert not page.error
    assert not page.metric


def test_a_trace_that_is_uploaded_is_shown_and_kept(empty_home: Home, open_page: Open) -> None:
    page = upload(open_page(PAGE), "device.csv", trace_text().encode())
    assert not page.exception
    assert page.selectbox(key="routing").value == "device.csv (imported trace)"
    expected = as_record(parse_route_trace("device.csv", trace_text().encode()))
    slots = int(page.slider(key="slots").value)
    assert metrics(page)["Miss rate"] == f"{expected.curve('lru').miss_rate(slots):.1%}"
    assert "λ and quality: not available for an imported trace" in said(page)
    assert [info.imported for info in routing_records(empty_home)] == ["device.csv"]
    assert open_page(PAGE).selectbox(key="routing").value == "device.csv (imported trace)"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "first line is not '# route_trace v1'"),
        (b"\xff\xfe\x00", "no text file"),
        (
            b"# route_trace v1\nphase,step,layer,slot,expert\n0,0,0,0,=cmd()\n",
            "Line 3 .* not a row of numbers",
        ),
        (
            b"# route_trace v1\n# n_expert=999999\nphase,step,layer,slot,expert\n0,0,0,0,1\n",
            "999,999 experts",
        ),
        (b"# route_trace v1\nphase,step,layer,slot,expert\n" + b"0,0,0,0,-1\n", "names layer 0, expert -1"),
    ],
)
def test_a_hostile_upload_is_a_sentence(
    content: bytes, sentence: str, empty_home: Home, open_page: Open
) -> None:
    page = upload(open_page(PAGE), "<script>alert(1)</script>.csv", content)
    assert not page.exception
    (error,) = page.error
    assert __import__("re").search(sentence, error.value)
    assert routing_records(empty_home) == []
    assert "Nothing is stored yet" in said(page)


def test_a_file_that_is_no_record_is_named_and_the_others_are_shown(
    trace_home: Home, open_page: Open
) -> None:
    folder = trace_home.root / "routing"
    (folder / "broken.parquet").write_bytes(b"PAR1")
    record().save(folder / "nameless.parquet")
    page = open_page(PAGE)
    sentences = " ".join(error.value for error in page.error)
    assert "broken.parquet is no routing record" in sentences
    assert "nameless.parquet does not say what it is the routing of" in sentences
    assert page.selectbox(key="routing").value == "device.csv (imported trace)"


def test_a_trace_can_be_removed(trace_home: Home, open_page: Open) -> None:
    page = open_page(PAGE)
    page.button(key="trace_remove").click().run()
    assert not page.exception
    assert routing_records(trace_home) == []
    assert "Nothing is stored yet" in said(page)


def test_warm_counts_what_was_decoded_and_one_cache_for_all_has_the_same_memory(
    trace_home: Home, open_page: Open
) -> None:
    trace = as_record(parse_route_trace("device.csv", trace_text().encode()))
    page = open_page(PAGE, start="Warm", slots="8")
    assert metrics(page)["Miss rate"] == f"{trace.curve('lru', 'warm').miss_rate(8):.1%}"
    both = open_page(PAGE, scope="One for all layers", slots="8", eviction="LFU")
    assert f"One cache of {8 * len(LAYERS)} experts" in said(both)
    whole = RoutingRecord.of(
        {each.layer: each.trace for each in trace.routings}, counted=trace.counted
    ).global_curves["lfu", "cold"]
    assert metrics(both)["Miss rate"] == f"{whole.miss_rate(8 * len(LAYERS)):.1%}"


def test_a_measured_model_shows_its_policies_and_what_they_cost(moe_home: Home, open_page: Open) -> None:
    page = open_page(PAGE, slots="8")
    assert not page.warning
    assert page.selectbox(key="routing").value == LABEL
    assert page.selectbox(key="policy").value == "Cache-Prior"
    own = record().curve("lru").miss_rate(8)
    assert metrics(page)["Miss rate"] == f"{own:.1%}"
    assert metrics(page)["Miss rate, re-routed"] == f"{0.9 * own:.1%}"
    slider = page.select_slider(key="strength_cache_prior")
    assert list(slider.options) == ["0.1", "0.3", "0.6"]
    slider.set_value("0.6").run()
    assert metrics(page)["Miss rate, re-routed"] == f"{0.4 * own:.1%}"
    assert metrics(page)["ΔNLL"] == "+0.0072 ± 0.0020"
    assert "Cache-Prior, λ 0.6** brings the miss rate from" in said(page)
    assert "names 80.0% of the experts that it will use (on its own input, the control, 100%)" in said(page)
    assert "2.5 experts a token would be loaded for nothing. Measured." in said(page)
    assert metrics(page)["Prefetch recall"] == "79.3%"


def test_trade_offs_has_its_policies_within_a_budget(moe_home: Home, open_page: Open) -> None:
    def budget() -> pd.DataFrame:
        return next(f.value for f in page.dataframe if "Policy" in f.value.columns).set_index("Policy")

    page = open_page(
        "trade_offs", of="Expert routing", slots="8", routing_cost="Miss rate (% of experts used)"
    )
    assert not page.warning
    assert not any(radio.key in ("scope", "start") for radio in page.radio)  # policies were measured one way
    within = budget()
    column = "Miss rate (% of experts used) ↓"
    assert within.loc["Cache-Prior", "Point"] == "Cache-Prior, λ 0.6"
    assert within.loc["Cache-Prior", "Of the original's"] == pytest.approx(0.4, abs=0.01)
    assert within.loc["Cache-Prior", "Perplexity"].startswith("+0.72")
    assert within.loc["Original routing", "Of the original's"] == 1
    assert within.loc["Belady (bound)", "How"] == "oracle"
    assert within.loc["Belady (bound)", column] < within.loc["Original routing", column]
    page.slider(key="rise").set_value(0.0).run()
    assert budget().loc["Cache-Prior", "Point"] == "none measured within it"
    page.radio(key="of").set_value("Sparse weights").run()
    assert "No results are stored yet" in said(page)
    assert not page.warning
    assert not page.exception


def test_a_size_between_the_stored_ones_says_what_it_shows(moe_home: Home, open_page: Open) -> None:
    page = open_page(PAGE, slots="9")
    assert "read from the stored grid: measured with caches of 8 experts, the nearest to 9" in said(page)
    assert "Drawn for caches of 8 experts, the stored size nearest to 9" in said(page)
    lfu = open_page(PAGE, slots="8", eviction="LFU")
    assert "Cache-Prior was not measured under LFU" in said(lfu)
    assert not lfu.error


def test_where_policies_use_unequal_numbers_of_experts_loads_are_counted_by_default(
    moe_home: Home, open_page: Open
) -> None:
    page = open_page(PAGE, slots="8")
    assert page.selectbox(key="cost").value == "Loaded from Flash (MB per token)"


def test_policies_that_use_fewer_experts_are_exact_at_every_size(moe_home: Home, open_page: Open) -> None:
    page = open_page(PAGE, policy="Expert pruning", slots="9", cost="Loaded from Flash (MB per token)")
    assert not page.warning
    assert list(page.select_slider(key="strength_expert_pruning").options) == ["2", "3"]
    two = record(2)
    assert metrics(page)["Miss rate, re-routed"] == f"{two.curve('lru').miss_rate(9):.1%}"
    assert metrics(page)["Belady, re-routed"] == f"{two.curve('belady').miss_rate(9):.1%}"


def test_a_derived_model_says_what_it_was_made_of(empty_home: Home, open_page: Open) -> None:
    write_moe(empty_home, model="smollm2-moe")
    page = open_page(PAGE)
    assert "smollm2-moe (derived from SmolLM2-135M)" in page.selectbox(key="routing").value


@pytest.mark.parametrize(
    "address",
    [
        {"quality": "Perplexity", "cost": "Experts loaded (per token, all layers)"},
        {"device": "Raspberry Pi 5, microSD card", "io": "Overlapped"},
        {"by_load": "true", "log": "true", "start": "Warm"},
        {"eviction": "Random", "scope": "One for all layers"},
    ],
)
def test_every_control_can_stand_in_the_address(
    address: dict[str, str], moe_home: Home, open_page: Open
) -> None:
    page = open_page(PAGE, **address)
    assert not page.warning
    assert not page.error


def test_nonsense_in_the_address_is_a_sentence(moe_home: Home, open_page: Open) -> None:
    page = open_page(PAGE, slots="99", policy="Cache-Priory", strength_cache_prior="7")
    notices = " ".join(warning.value for warning in page.warning)
    assert "Cache size (experts a layer) `99`; it must be a number from 4 to 16" in notices
    assert "did you mean 'Cache-Prior'?" in notices
    assert "λ (stored grid) `7`, which there is not" in notices


def test_a_routing_without_selections_or_sizes_shows_what_it_has(empty_home: Home, open_page: Open) -> None:
    bare = RoutingRecord.of({0: ExpertTrace.from_lists([[0, 1], [1, 2]] * 8, EXPERTS)}, keep_tokens=0)
    save_routing_record(empty_home, bare, "trace-0", {"imported": "bare.csv", "sha256": "0"}, {})
    page = open_page(PAGE)
    assert "stored without its selections" in said(page)
    assert "no time can be simulated" in said(page)
    assert not page.error


def test_moving_the_slider_reads_and_walks_nothing_twice(
    trace_home: Home, open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What makes a move quick on any machine; benchmarks/moe_page.py times it."""
    read: list[Path] = []
    walked: list[int] = []
    load, walk = RoutingRecord.load, moe_data.lifetimes_in

    def reading(path: Path) -> RoutingRecord:
        read.append(path)
        return load(path)

    def walking(record: RoutingRecord, slots: int, *rest: Any) -> Any:
        walked.append(slots)
        return walk(record, slots, *rest)

    monkeypatch.setattr(RoutingRecord, "load", reading)
    monkeypatch.setattr(moe_data, "lifetimes_in", walking)
    page = open_page(PAGE, slots="8")
    assert len(read) == 1
    rates = []
    for slots in (5, 10, 8, 5):
        page.slider(key="slots").set_value(slots).run()
        rates.append(metrics(page)["Miss rate"])
    assert not page.exception
    assert len(read) == 1
    assert sorted(walked) == sorted([5, 8, 10] * len(RULES_SHOWN))
    assert rates[0] == rates[3] != rates[1]


def test_a_damaged_record_is_a_sentence_and_the_page_goes_on(trace_home: Home, open_page: Open) -> None:
    (info,) = routing_records(trace_home)
    damage(info.path)
    page = open_page(PAGE)
    assert not page.exception
    assert [error.value for error in page.error] == [
        f"{info.path} is damaged and cannot be read as a routing record; remove it, and measure or import it "
        "again."
    ]
    assert page.file_uploader(key="trace_file")


def test_a_damaged_record_of_another_policy_leaves_that_policy_out(moe_home: Home, open_page: Open) -> None:
    infos = routing_records(moe_home)
    damaged = next(info for info in infos if info.description["settings"].get("experts") == 2)
    damage(damaged.path)
    page = open_page(PAGE, slots="8", policy="Expert pruning")
    assert not page.exception
    assert [str(damaged.path) in error.value for error in page.error] == [True]
    assert metrics(page)["Miss rate"] == f"{record().curve('lru').miss_rate(8):.1%}"


def damage(path: Path) -> None:
    """Overwrite a record's pages; its metadata, at the end, stays whole."""
    content = bytearray(path.read_bytes())
    content[4:200] = bytes(196)
    path.write_bytes(bytes(content))


def test_a_trace_that_cannot_be_removed_says_why_once(
    trace_home: Home, open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = open_page(PAGE)
    with monkeypatch.context() as stuck:
        stuck.setattr(Path, "unlink", refuse)
        page.button(key="trace_remove").click().run()
    assert ["cannot be removed (Permission denied)" in error.value for error in page.error] == [True]
    assert not page.run().error


def refuse(path: Path, missing_ok: bool = False) -> None:
    raise PermissionError(13, "Permission denied")
