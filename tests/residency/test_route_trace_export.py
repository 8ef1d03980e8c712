"""Traces out and in again: nothing that decides a miss is lost; real traces keep their figures."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from backend.errors import UserError
from backend.residency import (
    ExpertTrace,
    RoutingRecord,
    as_record,
    miss_curve,
    parse_route_trace,
    read_route_trace,
    route_trace_export,
    route_trace_lines,
)
from tests.residency.test_route_trace import REAL
from tests.residency.test_routing_record import routings

NAME = "made.csv"


def again(record, **how):
    text = "\n".join(route_trace_lines(record, **how))
    return as_record(parse_route_trace(NAME, text.encode()))


def by_token(record):
    """For each layer its tokens' experts, None where the layer lacks the token."""
    found = {}
    for each in record.routings:
        rows = (experts.tolist() for experts in each.trace.members())
        found[each.layer] = [next(rows) if here else None for here in each.present]
    return found


@settings(max_examples=60, deadline=None)
@given(routings())
def test_what_is_written_reads_back(found):
    traces, lengths, counted = found
    record = RoutingRecord.of(traces, lengths=lengths, counted=counted, model="toy model", expert_bytes=100)
    back = again(record)
    assert by_token(back) == by_token(record)
    assert back.counted.tolist() == record.counted.tolist()
    assert back.lengths == record.lengths
    assert back.bytes_by_layer == record.bytes_by_layer
    assert (back.model, back.experts, back.layers) == ("toy_model", record.experts, record.layers)
    for rule in ("lru", "lfu", "belady"):
        assert back.curve(rule).hits.tolist() == record.curve(rule).hits.tolist()


@settings(max_examples=20, deadline=None)
@given(found=routings())
def test_the_command_lines_curve_is_the_records(tmp_path_factory, found):
    """Of several sequences too: a trace that was exported says which turns began with empty caches."""
    traces, lengths, counted = found
    record = RoutingRecord.of(traces, lengths=lengths, counted=counted)
    path = tmp_path_factory.mktemp("traces") / NAME
    path.write_text("\n".join(route_trace_lines(record)))
    for warm in (False, True) if record.has_warm else (False,):
        start = "warm" if warm else "cold"
        assert miss_curve(path, "lfu", warm=warm).hits.tolist() == record.curve("lfu", start).hits.tolist()
        ours = miss_curve(path, "lru", scope="global", warm=warm)
        assert ours.misses(ours.size) == record.global_curves["lru", start].misses(ours.size)


def test_weights_and_what_a_cache_held_are_written():
    trace = ExpertTrace.from_lists([[0, 1], [0, 2], [3, 0]], 4)
    weights = np.array([0.6, 0.4, 0.75, 0.25, 0.5, 0.5], np.float32)
    record = RoutingRecord.of({7: trace}, weights={7: weights}, expert_bytes=50)
    rows = [line.split(",") for line in route_trace_lines(record, slots=2) if line[0].isdigit()]
    assert [row[3] for row in rows] == ["7"] * 6
    assert [float(row[6]) for row in rows] == pytest.approx(weights.tolist())
    assert [row[7] for row in rows] == ["0", "0", "1", "0", "0", "1"]
    assert [row[8] for row in rows] == ["50", "50", "0", "50", "50", "0"]
    assert again(record).routings[0].weights.tolist() == weights.tolist()


def test_a_record_without_selections_has_no_trace():
    record = RoutingRecord.of({0: ExpertTrace.from_lists([[0]], 2)}, keep_tokens=0)
    with pytest.raises(UserError, match="without its selections"):
        next(route_trace_lines(record))


def test_a_trace_with_too_much_to_walk_is_refused_in_a_sentence(monkeypatch):
    monkeypatch.setattr(route_trace_export, "MOST_WORK", 3)
    text = "# route_trace v1\nphase,step,layer,slot,expert\n0,0,0,0,1\n0,1,0,0,1\n"
    with pytest.raises(UserError, match=r"2 tokens in 1 layers of 2 experts; .* Cut it to fewer tokens"):
        as_record(parse_route_trace(NAME, text.encode()))


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "slots", "lru", "lfu", "belady"), REAL)
def test_real_traces_keep_the_specifications_figures(data_root: Path, name, slots, lru, lfu, belady):
    record = as_record(read_route_trace(data_root / "traces" / f"{name}.csv"))
    found = [record.curve(rule, "warm").miss_rate(slots) for rule in ("lru", "lfu", "belady")]
    assert found == pytest.approx([lru, lfu, belady], abs=5e-4)


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["qwen", "gemma", "gptoss"])
def test_a_real_trace_survives_the_round_trip(data_root: Path, name, tmp_path):
    path = data_root / "traces" / f"{name}.csv"
    record = as_record(read_route_trace(path))
    copy = tmp_path / "copy.csv"
    copy.write_text("\n".join(route_trace_lines(record, slots=16)))
    assert by_token(as_record(read_route_trace(copy))) == by_token(record)
    for warm in (False, True):
        ours = miss_curve(copy, "belady", scope="global", warm=warm)
        assert ours.hits.tolist() == miss_curve(path, "belady", scope="global", warm=warm).hits.tolist()
    record.save(tmp_path / "record.parquet")
    assert by_token(RoutingRecord.load(tmp_path / "record.parquet")) == by_token(record)
