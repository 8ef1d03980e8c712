"""Gathered decoding of the real model: the logits and the greedy text of masked decoding.

Two ways of adding up a product round differently, and a selection between two scores that are equal but for
rounding may then differ: what is compared is the arithmetic, with the gathered run's selections replayed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from backend.decoding.decoder import Decoding, ready_for
from backend.decoding.refusal import timed_methods
from backend.evaluation.texts import load_text
from backend.experiments.laboratory import Laboratory
from backend.home import Home
from backend.sparsity import make_policy

pytestmark = pytest.mark.real_model
PROMPT, TOKENS, TOLERANCE = 96, 64, 2e-3
SETTINGS: dict[str, dict[str, Any]] = {
    "dip": {"density": 0.5},
    "dip_ca": {"density": 0.5},
    "dense": {},
    "predictor": {"rank": 16, "epochs": 1},
}


class Noted:
    """A policy that notes its masks, or gives back those that were noted."""

    def __init__(self, policy: Any) -> None:
        self.policy = policy
        self.masks: list[Any] = []
        self.replay = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.policy, name)

    def as_ranking(self, site: str, context: Any) -> None:
        return None

    def mlp_in(self, x: Any, context: Any) -> Any:
        return self._mask("mlp_in", lambda: self.policy.mlp_in(x, context))

    def mlp_mid(self, activations: Any, context: Any) -> Any:
        return self._mask("mlp_mid", lambda: self.policy.mlp_mid(activations, context))

    def _mask(self, site: str, choose: Any) -> Any:
        if site not in self.policy.sites():
            return None
        if self.policy.prompt_alone:  # one mask for the whole decode: there is nothing to flip
            return choose()
        if self.replay:
            return self.masks.pop(0)
        self.masks.append(choose())
        return self.masks[-1]


@pytest.fixture(scope="module")
def laboratory(real_home: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    """A laboratory on one thread: on a busy machine the kernels' threads wait for each other."""
    home = Home.resolve(tmp_path_factory.mktemp("home"))
    home.models.rmdir()
    home.models.symlink_to(real_home.models)
    before = torch.get_num_threads()
    yield Laboratory(home, device="cpu", threads=1)
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", timed_methods())
@pytest.mark.parametrize("dtype", ["float32", "int8"])  # the outer loop: each loads the model once
def test_gathered_decoding_is_masked_decoding(laboratory: Laboratory, name: str, dtype: str) -> None:
    subject = laboratory.subject("smollm2-135m", dtype)
    text = load_text("prose", None).content[:2000]
    ids = subject.loaded.tokenizer(text, return_tensors="pt").input_ids[0][:PROMPT]
    made = make_policy(name, SETTINGS.get(name, {"keep": 0.5}))
    fitted = subject.engine.calibrate(made, [ids[None]])
    policy: Any = Noted(made)
    with ready_for(subject.engine, policy, int8=dtype == "int8") as model:
        gathered = Decoding(model, policy, PROMPT + TOKENS, calibration=fitted)
        logits = [gathered.read_prompt(ids)]
        for _ in range(TOKENS):
            logits.append(gathered.feed(int(logits[-1].argmax())))
        assert gathered.loop == "lean"
        policy.replay = True
        masked = Decoding(model, policy, PROMPT + TOKENS, execution="masked", calibration=fitted)
        expected = [masked.read_prompt(ids)]
        for token in [int(each.argmax()) for each in logits[:-1]]:
            expected.append(masked.feed(token))
    got, want = torch.stack(logits), torch.stack(expected)
    assert not policy.masks, "a mask was not asked for"
    assert float((got - want).abs().max()) < TOLERANCE
    best = want.topk(2, dim=1).values
    clear = best[:, 0] - best[:, 1] > 2 * TOLERANCE
    assert clear.float().mean() > 0.9
    assert torch.equal(got.argmax(1)[clear], want.argmax(1)[clear])
    assert gathered.settle().mlp_density == pytest.approx(masked.settle().mlp_density)
