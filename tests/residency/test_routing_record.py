"""Routing records: their curves against the traces they came from, ragged layers, files."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.errors import UserError
from backend.experiments.routing_records import routing_records, save_routing_record
from backend.home import Home
from backend.residency import EVICTIONS, ExpertTrace, RoutingRecord, miss_curve_of, simulate


@st.composite
def routings(draw, layers=3):
    """Traces of some layers over the same tokens, each with its own number of experts; cut into sequences."""
    lengths = draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))
    traces = {}
    for layer in draw(st.lists(st.integers(0, 40), min_size=1, max_size=layers, unique=True)):
        size = draw(st.integers(3, 7))
        token = st.permutations(range(size)).map(lambda order: order[:2])
        traces[layer] = ExpertTrace.from_lists([draw(token) for _ in range(sum(lengths))], size)
    counted = draw(st.lists(st.booleans(), min_size=sum(lengths), max_size=sum(lengths)))
    return traces, lengths, np.array(counted)


def misses_of(trace, lengths, counted, slots, rule):
    """Each sequence with an empty cache of its own, walked at this one size."""
    lists = [each.tolist() for each in trace.members()]
    found, first = 0, 0
    for length in lengths:
        part = ExpertTrace.from_lists(lists[first : first + length], trace.size)
        found += simulate(part, slots, rule).misses[counted[first : first + length]].sum()
        first += length
    return found


@settings(max_examples=40, deadline=None)
@given(routings(), st.sampled_from(EVICTIONS))
def test_every_layers_curve_is_that_of_its_sequences_walked_one_by_one(found, rule):
    traces, lengths, counted = found
    record = RoutingRecord.of(traces, counted=counted, lengths=lengths)
    assert record.layers == tuple(sorted(traces))
    everything = np.ones(sum(lengths), bool)
    for place, layer in enumerate(record.layers):
        for slots in range(2, traces[layer].size + 1):
            cold = record.curves[place, rule, "cold"]
            assert cold.misses(slots) == misses_of(traces[layer], lengths, everything, slots, rule)
            if record.has_warm:
                warm = record.curves[place, rule, "warm"]
                assert warm.misses(slots) == misses_of(traces[layer], lengths, counted, slots, rule)
        used = [int(expert) for each in traces[layer].members() for expert in each]
        assert record.traffic[place].tolist() == [used.count(i) for i in range(record.experts)]
    assert record.has_warm == bool(counted.any())


@settings(max_examples=40, deadline=None)
@given(routings(), st.sampled_from(EVICTIONS))
def test_the_global_curve_is_one_cache_over_all_layers_batches(found, rule):
    traces, lengths, counted = found
    record = RoutingRecord.of(traces, counted=counted, lengths=lengths)
    firsts = np.cumsum([0, *record.experts_by_layer])
    members = {layer: [each.tolist() for each in trace.members()] for layer, trace in traces.items()}
    batches = [
        [expert + int(firsts[place]) for expert in members[layer][token]]
        for token in range(sum(lengths))
        for place, layer in enumerate(record.layers)
    ]
    trace = ExpertTrace.from_lists(batches, int(firsts[-1]))
    often = len(traces)
    for slots in range(2, trace.size + 1):
        expected = misses_of(
            trace, [often * each for each in lengths], np.ones(len(batches), bool), slots, rule
        )
        assert record.global_curves[rule, "cold"].misses(slots) == expected


@settings(max_examples=40, deadline=None)
@given(routings(), st.integers(0, 20))
def test_a_file_holds_the_whole_record(tmp_path_factory, found, keep):
    traces, lengths, counted = found
    rng = np.random.default_rng(0)
    weights = {
        layer: rng.random(len(trace.entries)).astype(np.float16).astype(np.float32)
        for layer, trace in traces.items()
    }
    record = RoutingRecord.of(
        traces, counted=counted, lengths=lengths, model="toy", weights=weights, keep_tokens=keep,
        expert_bytes={layer: 10 + layer for layer in traces}, about={"why": "test"},
    )  # fmt: skip
    path = tmp_path_factory.mktemp("routing") / "deeper" / "record.parquet"
    record.save(path)
    again = RoutingRecord.load(path)
    for name in (
        "model", "layers", "experts_by_layer", "bytes_by_layer", "lengths", "about", "tokens_kept",
        "experts_per_token", "kept_lengths", "expert_bytes",
    ):  # fmt: skip
        assert getattr(again, name) == getattr(record, name), name
    assert (again.counted == record.counted).all()
    assert (again.traffic == record.traffic).all()
    assert {key: curve.as_json() for key, curve in again.curves.items()} == {
        key: curve.as_json() for key, curve in record.curves.items()
    }
    assert {key: curve.as_json() for key, curve in again.global_curves.items()} == {
        key: curve.as_json() for key, curve in record.global_curves.items()
    }
    for ours, theirs in zip(record.routings, again.routings, strict=True):
        assert ours.trace.entries.tolist() == theirs.trace.entries.tolist()
        assert ours.trace.offsets.tolist() == theirs.trace.offsets.tolist()
        assert ours.present.tolist() == theirs.present.tolist()
        assert ours.weights.tolist() == theirs.weights.tolist()
    assert again.tokens_kept == min(keep, sum(lengths))
    assert sum(again.kept_lengths) == again.tokens_kept


def test_a_layer_may_lack_tokens():
    """As on devices: a layer's rows are those of the tokens it has."""
    full = ExpertTrace.from_lists([[0], [1], [0]], 2)
    ragged = ExpertTrace.from_lists([[1], [1]], 2)
    present = {0: np.ones(3, bool), 4: np.array([True, False, True])}
    late = np.array([False, True, True])
    record = RoutingRecord.of({0: full, 4: ragged}, counted=late, present=present)
    assert record.curves[1, "lru", "warm"].accesses == 1
    assert record.global_curves["lru", "cold"].accesses == 5
    assert record.tokens == 3
    # One cache sees 0, 2 + 1, 1, 0, 2 + 1: with three slots the last two are still there.
    assert [record.global_curves["lru", "cold"].misses(slots) for slots in (1, 2, 3)] == [5, 5, 3]


def test_layers_of_unlike_size_share_one_curve():
    record = RoutingRecord.of(
        {0: ExpertTrace.from_lists([[0], [1], [0]], 2), 1: ExpertTrace.from_lists([[3], [2], [3]], 4)}
    )
    both = record.curve("lru")
    assert [both.misses(slots) for slots in (1, 2, 3, 4)] == [6, 4, 4, 4]
    assert record.experts == 4


def test_bytes_per_token_add_layers_of_unlike_experts():
    traces = {0: ExpertTrace.from_lists([[0], [1]], 2), 1: ExpertTrace.from_lists([[0], [0]], 2)}
    record = RoutingRecord.of(traces, expert_bytes={0: 100, 1: 10})
    assert record.miss_bytes_per_token(1, "lru") == pytest.approx((2 * 100 + 1 * 10) / 2)
    assert record.expert_bytes == 55
    assert RoutingRecord.of(traces).miss_bytes_per_token(1, "lru") is None


def test_a_record_without_word_of_what_counts_leaves_the_first_eighth_of_each_sequence_out():
    traces = {0: ExpertTrace.from_lists([[0]] * 16, 2)}
    assert RoutingRecord.of(traces).counted.sum() == 14
    assert RoutingRecord.of(traces, lengths=(8, 8)).counted.tolist() == 2 * ([False] + 7 * [True])


def test_the_curves_are_those_of_the_whole_even_if_fewer_tokens_are_kept():
    rng = np.random.default_rng(2)
    trace = ExpertTrace.from_lists([rng.permutation(9)[:3] for _ in range(50)], 9)
    record = RoutingRecord.of({0: trace}, keep_tokens=10, lengths=(20, 30))
    assert record.curves[0, "lru", "cold"].accesses == 150
    assert (record.tokens, record.tokens_kept, record.kept_lengths) == (50, 10, (10,))
    whole = RoutingRecord.of({0: trace})
    assert whole.curves[0, "lru", "cold"].as_json() == miss_curve_of(trace).as_json()


def test_what_does_not_fit_together_is_refused():
    trace = ExpertTrace.from_lists([[0], [1]], 2)
    with pytest.raises(ValueError, match="sequences of 3 tokens"):
        RoutingRecord.of({0: trace}, lengths=(3,))
    with pytest.raises(ValueError, match="'counted' is of 1"):
        RoutingRecord.of({0: trace}, counted=np.ones(1, bool))
    with pytest.raises(ValueError, match="layer 1 has 1 tokens"):
        RoutingRecord.of({0: trace, 1: ExpertTrace.from_lists([[0]], 2)})


def test_a_file_that_is_no_record_gets_one_sentence(tmp_path):
    path = tmp_path / "wrong.parquet"
    path.write_bytes(b"PAR1 not really")
    with pytest.raises(UserError, match="no routing record"):
        RoutingRecord.load(path)
    with pytest.raises(UserError, match="no routing record"):
        RoutingRecord.load(tmp_path / "absent.parquet")
    with pytest.raises(UserError, match="cannot be made"):
        RoutingRecord.of({0: ExpertTrace.from_lists([[0]], 2)}).save(path / "below" / "record.parquet")


def test_stored_records_are_listed_by_their_cell(tmp_path):
    home = Home.resolve(tmp_path)
    record = RoutingRecord.of({0: ExpertTrace.from_lists([[0], [1]], 2)}, about={"note": 1})
    path = save_routing_record(home, record, "cell", {"policy": "original"}, {"commit": "x"})
    (info,) = [each for each in routing_records(home) if each.cell_id == "cell"]
    assert (info.path, info.description, info.provenance) == (path, {"policy": "original"}, {"commit": "x"})
    assert RoutingRecord.load(path).about["note"] == 1


def test_importing_records_loads_neither_torch_nor_numba():
    code = (
        "import backend.experiments.routing_records, sys;"
        "assert not {'torch', 'numba', 'pyarrow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
