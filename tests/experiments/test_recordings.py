"""Recordings: their curves are those of a cache that is really walked, and they survive the disk."""

import numpy as np
import pytest

from backend.devices import SimulatorSettings, simulate
from backend.errors import UserError
from backend.experiments.laboratory import Laboratory
from backend.experiments.recorder import run_recording
from backend.experiments.recordings import RULES, load_recording, recordings
from backend.experiments.runs import RunFolder
from backend.experiments.sweep import one_policy
from backend.residency import MaskTrace
from backend.residency import simulate as walk
from backend.sparsity import make_policy

DIP = {"density": 0.4}
EVALUATION = {"text": "prose", "tokens": 48, "window": 16}


def recorded(home, folder, policy="dip", settings=None):
    sweep = one_policy("record", str(folder), policy, DIP if settings is None else settings, EVALUATION)
    run = RunFolder.create(home, sweep, "recording")
    laboratory = Laboratory(home, device="cpu")
    status = run_recording(run, laboratory)
    return laboratory, status


def own(home):
    return [info for info in recordings(home) if home.root in info.path.parents]


def test_a_recording_has_the_hits_of_caches_walked_token_by_token_in_each_window(home, tiny_folder):
    laboratory, status = recorded(home, tiny_folder)
    assert status == "done"
    (info,) = own(home)
    recording = load_recording(info)
    subject = laboratory.subject(str(tiny_folder), "float32")
    (plan,) = one_policy("x", str(tiny_folder), "dip", {"density": 0.4}, EVALUATION).plans()
    windows = laboratory.reference(subject, plan.evaluation).windows
    hits = {(rule, slots): 0 for rule in RULES for slots in (5, 20, 48)}
    for index in range(len(windows)):

        def watch(layer, site, mask, values):
            if (layer, site) == (1, "mlp_in"):
                trace = MaskTrace.from_masks(mask[0].numpy(), values[0].numpy())
                for rule, slots in hits:
                    hits[rule, slots] += int((trace.counts - walk(trace, slots, rule).misses).sum())

        ids = windows.ids[index : index + 1]
        subject.engine.hidden_states(
            make_policy("dip", {"density": 0.4}), ids, sequences=(index,), watch=watch
        )
    for (rule, slots), expected in hits.items():
        assert recording.curves[1, "mlp_in", rule, "cold"].hits[slots] == expected
    assert info.mlp_density == pytest.approx(0.4, abs=0.02)
    assert info.description["settings"] == {"density": 0.4}


def test_a_recording_feeds_the_simulator_and_more_dram_is_never_slower(home, tiny_folder):
    recorded(home, tiny_folder)
    hooks = load_recording(own(home)[0]).hooks("lru")
    policy = make_policy("dip", {"density": 0.4})
    rates = [
        simulate(
            "apple-a18", "phi-3-medium", gb, policy, recorded=hooks, settings=SimulatorSettings.paper()
        ).tokens_per_s
        for gb in (3.0, 4.0, 6.0)
    ]
    assert np.all(np.diff(rates) > 0)


@pytest.mark.parametrize(
    ("policy", "settings", "sentence"),
    [
        ("dense", {}, "Dense masks no MLP, so there is nothing to record"),
        ("dip_ca", {"density": 0.5}, "The masks of DIP-CA depend on the cache"),
    ],
)
def test_what_cannot_be_recorded_is_said(home, tiny_folder, policy, settings, sentence):
    with pytest.raises(UserError, match=sentence):
        recorded(home, tiny_folder, policy, settings)
    assert not own(home)


def test_a_file_that_is_no_recording_gets_a_sentence(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"nothing")
    with pytest.raises(UserError, match="is no recording of Sparsity Lens"):
        load_recording(tmp_path / "x.parquet")
    with pytest.raises(UserError, match="is no recording of Sparsity Lens"):
        load_recording(tmp_path / "none.parquet")
