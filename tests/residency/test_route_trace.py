"""Recorded expert routings: the numbers of real traces, and files that are no traces."""

from pathlib import Path

import pytest

from backend.errors import UserError
from backend.residency import miss_curve, read_route_trace
from backend.residency import route_trace as module

HEADER = """# route_trace v1
# model=a.gguf arch=toy n_layer=2 n_expert=8 n_expert_used=2
# layer=0 expert_bytes=100 dense_bytes=7
turn,phase,step,layer,slot,expert,weight,residency,expert_bytes
"""
ROWS = ["0,0,0,0,0,3,.6,0,100", "0,0,0,0,1,5,.4,0,100", "0,1,1,0,1,3,.4,1,0", "0,1,1,0,0,1,.6,0,100"]

REAL = [
    ("qwen", 12, 0.478, 0.439, 0.327),
    ("qwen", 32, 0.183, 0.179, 0.088),
    ("qwen", 64, 0.042, 0.042, 0.031),
    ("gemma", 12, 0.477, 0.431, 0.329),
    ("gptoss", 12, 0.404, 0.494, 0.255),
]


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "trace.csv"
    path.write_text(text)
    return path


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "slots", "lru", "lfu", "belady"), REAL)
def test_real_traces_have_the_miss_rates_of_the_specification(data_root, name, slots, lru, lfu, belady):
    path = data_root / "traces" / f"{name}.csv"
    found = [miss_curve(path, rule, warm=True).miss_rate(slots) for rule in ("lru", "lfu", "belady")]
    assert found == pytest.approx([lru, lfu, belady], abs=5e-4)


@pytest.mark.real_data
def test_a_global_lru_smaller_than_one_tokens_cycle_hits_nothing(data_root):
    path = data_root / "traces" / "gptoss.csv"
    trace = read_route_trace(path)
    cycle = len(trace.chosen) * trace.experts_per_token
    curve = miss_curve(path, "lru", scope="global", warm=True)
    assert curve.miss_rate(cycle // 2) > 0.99
    assert curve.misses(len(trace.chosen) * trace.experts) == curve.first_uses
    assert curve.accesses == miss_curve(path, "lru", warm=True).accesses


def test_a_trace_is_read_in_the_order_of_tokens_and_slots(tmp_path):
    trace = read_route_trace(write(tmp_path, HEADER + "\n".join(reversed(ROWS))))
    assert trace.chosen == {0: {(0, 0, 0): (3, 5), (0, 1, 1): (1, 3)}}
    assert (trace.model, trace.architecture, trace.experts) == ("a.gguf", "toy", 8)
    assert trace.expert_bytes == {0: 100}
    assert [each.tolist() for each in trace.layer(0).members()] == [[3, 5], [1, 3]]
    assert trace.tokens == [(0, 0, 0), (0, 1, 1)]
    assert trace.lengths == [2]


def test_cold_counts_all_and_warm_counts_what_was_decoded(tmp_path):
    path = write(tmp_path, HEADER + "\n".join(ROWS))
    cold, warm = miss_curve(path), miss_curve(path, warm=True)
    assert (cold.accesses, cold.misses(2), cold.smallest) == (4, 3, 2)
    assert (warm.accesses, warm.misses(2), warm.miss_rate(8)) == (2, 1, 0.5)
    assert list(warm.miss_rates()) == list(range(2, 9))


def test_a_global_cache_holds_experts_of_all_layers(tmp_path):
    rows = [*ROWS, "0,0,0,1,0,3,.6,0,100", "0,1,1,1,0,3,.6,0,100"]
    path = write(tmp_path, HEADER + "\n".join(rows))
    curve = miss_curve(path, scope="global")
    assert (curve.size, curve.accesses, curve.misses(16)) == (16, 6, 4)
    assert miss_curve(path, scope="global", warm=True).misses(16) == 1


@pytest.mark.parametrize("scope", ["per-layer", "global"])
def test_a_turn_that_began_cold_meets_empty_caches(tmp_path, scope):
    """Two turns with the same experts: the second misses them again where it began cold."""
    rows = "\n".join([*ROWS, *(f"1{row[1:]}" for row in ROWS)])
    one, two = (
        miss_curve(write(tmp_path, HEADER.replace("arch=toy", f"arch=toy {said}") + rows), scope=scope)
        for said in ("", "cold_turns=0,1")
    )
    alone = miss_curve(write(tmp_path, HEADER + "\n".join(ROWS)), scope=scope)
    assert one.misses(8) == alone.misses(8) == 3
    assert two.misses(8) == 6
    assert two.hits.tolist() == (alone + alone).hits.tolist()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "no routing trace"),
        ("turn,phase\n1,2\n", "first line is not '# route_trace v1'"),
        ("# route_trace v1\nturn,phase,step,layer,slot\n", "no column 'expert'"),
        (HEADER, "has no rows"),
        (HEADER + "0,0,0,0,0,x,1,0,0", "Line 5 .* is not a row of numbers"),
        (HEADER + ROWS[0] + "\n0,0,0,0", "Line 6 .* is not a row of numbers"),
        (HEADER + "0,2,0,0,0,1,1,0,0", "Line 5 .* that cannot be"),
        (HEADER + "0,0,-1,0,0,1,1,0,0", "Line 5 .* that cannot be"),
        (HEADER + "0,0,0,0,0,99999999,1,0,0", "names layer 0, expert 99999999"),
        (HEADER + "0,0,0,0,0,8,1,0,0", "uses expert 8, but says that it has 8"),
        (HEADER.replace("n_expert=8", "n_expert=5000") + ROWS[0], "has 5,000 experts in each of 1 layers"),
        (HEADER + ROWS[0] + "\n" + ROWS[0], "gives slot 0 of layer 0, step 0 a second time"),
        (HEADER + ROWS[0] + "\n0,0,0,0,1,3,1,0,0", "gives expert 3 of layer 0, step 0 a second time"),
    ],
)
def test_a_file_that_is_no_trace_gets_one_sentence(tmp_path, text, sentence):
    with pytest.raises(UserError, match=sentence):
        miss_curve(write(tmp_path, text))


def test_missing_binary_and_huge_files_get_one_sentence(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="cannot be read"):
        miss_curve(tmp_path / "absent.csv")
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(UserError, match="no text file"):
        miss_curve(binary)
    monkeypatch.setattr(module, "MAX_BYTES", 10)
    with pytest.raises(UserError, match="larger than"):
        miss_curve(write(tmp_path, HEADER))


def test_a_warm_start_without_decoded_tokens_is_refused(tmp_path):
    with pytest.raises(UserError, match="no decoded tokens"):
        miss_curve(write(tmp_path, HEADER + ROWS[0]), warm=True)


def test_numbers_no_one_could_mean_are_not_taken(tmp_path):
    digits = "9" * 5000
    text = HEADER.replace("n_expert=8", f"n_expert={digits}").replace("=100", f"={digits}")
    trace = read_route_trace(write(tmp_path, text + "\n".join(ROWS)))
    assert (trace.experts, trace.expert_bytes) == (6, {})


def test_weights_are_read_where_every_row_has_one(tmp_path):
    trace = read_route_trace(write(tmp_path, HEADER + "\n".join(ROWS)))
    assert trace.weights == {0: {(0, 0, 0): (0.6, 0.4), (0, 1, 1): (0.6, 0.4)}}
    assert trace.dense_bytes == {0: 7}
    lacking = read_route_trace(write(tmp_path, HEADER + ROWS[0] + "\n0,0,0,0,1,5,,0,100"))
    assert lacking.weights == {}
    assert lacking.chosen == {0: {(0, 0, 0): (3, 5)}}
