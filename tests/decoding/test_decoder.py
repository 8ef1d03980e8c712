"""Decoding token by token: the lean loop, the fallback, gathered against masked, state, refusals."""

from __future__ import annotations

import pytest
import torch

from backend.decoding.decoder import Decoding, ready_for
from backend.errors import UserError
from backend.models.anatomy import find_anatomy
from backend.models.quantization import round_to_int8
from backend.sparsity import make_policy
from backend.sparsity.engine import MaskedEngine
from tests.models_tiny import tiny_model

PROMPT, TOKENS = 9, 24
LEAN = ("llama", "qwen2", "qwen3", "mistral", "phi3")
OTHERS = ("gemma", "gemma2")
DENSE = make_policy("dense", {})


def ids_of(length=PROMPT + TOKENS):
    return torch.randint(3, 120, (length,), generator=torch.Generator().manual_seed(7))


def engine_of(family, **changes):
    model, _ = tiny_model(family, **changes)
    return MaskedEngine(model, find_anatomy(model))


def decoded(model, policy, ids, **how):
    """Feed a text; return the logits after the prompt and after each token. # [1 + T, V]"""
    decoding = Decoding(model, policy, len(ids), **how)
    logits = [decoding.read_prompt(ids[:PROMPT])]
    logits += [decoding.feed(int(token)) for token in ids[PROMPT:]]
    return torch.stack(logits), decoding


def whole(engine, ids):
    with torch.inference_mode():
        return engine.model(input_ids=ids[None]).logits[0, PROMPT - 1 :]


@pytest.mark.parametrize("family", LEAN)
def test_the_lean_loop_gives_the_logits_of_the_model_itself(family):
    engine = engine_of(family)
    with ready_for(engine, DENSE) as model:
        logits, decoding = decoded(model, DENSE, ids_of())
    assert decoding.loop == "lean"
    torch.testing.assert_close(logits, whole(engine, ids_of()), rtol=1e-3, atol=1e-4)
    assert decoding.parts.total > decoding.parts.mlp > 0
    assert decoding.parts.overhead > 0


@pytest.mark.parametrize("family", OTHERS)
def test_other_families_decode_in_transformers_loop_and_say_why(family):
    engine = engine_of(family)
    with ready_for(engine, DENSE) as model:
        logits, decoding = decoded(model, DENSE, ids_of())
    assert decoding.loop == "transformers"
    assert "Llama" in model.why_not_lean
    torch.testing.assert_close(logits, whole(engine, ids_of()), rtol=1e-3, atol=1e-4)
    assert decoding.parts.total > decoding.parts.mlp > 0


def test_biases_a_half_precision_and_a_window_fall_back():
    with ready_for(engine_of("llama", attention_bias=True), DENSE) as biased:
        assert biased.lean is not None
    with ready_for(engine_of("llama", mlp_bias=True), DENSE) as biased:
        assert biased.lean is None
    engine = engine_of("llama")
    engine.model.to(torch.bfloat16)
    with ready_for(engine, DENSE) as half:
        assert "float32" in half.why_not_lean
    with ready_for(engine_of("mistral", sliding_window=16), DENSE) as windowed:
        assert Decoding(windowed, DENSE, 16).loop == "lean"
        assert Decoding(windowed, DENSE, 17).loop == "transformers"


@pytest.mark.parametrize("family", ["llama", "gemma"])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("dip", {"density": 0.4}),
        ("dip_ca", {"density": 0.5, "gamma": 0.3}),
        ("gate_pruning", {"keep": 0.4}),
        ("up_pruning", {"keep": 0.4}),
        ("glu_pruning", {"keep": 0.4}),
        ("magnitude_norm", {"keep": 0.4}),
        ("random", {"keep": 0.4}),
        ("cats", {"keep": 0.4}),
        ("predictor", {"keep": 0.4, "rank": 8, "epochs": 1}),
    ],
)
@pytest.mark.parametrize("prefill", ["dense", "sparse"])
def test_gathered_equals_masked(family, name, settings, prefill):
    engine = engine_of(family)
    policy = make_policy(name, settings)
    how = {"prefill": prefill, "calibration": engine.calibrate(policy, [ids_of()[None].flip(1)])}
    with ready_for(engine, policy) as model:
        gathered, first = decoded(model, policy, ids_of(), execution="gathered", **how)
        masked, second = decoded(model, policy, ids_of(), execution="masked", **how)
    torch.testing.assert_close(gathered, masked, rtol=1e-3, atol=1e-3)
    one, other = first.settle(), second.settle()
    assert one.tokens == other.tokens == TOKENS + (PROMPT if prefill == "sparse" else 0)
    assert one.mlp_density == pytest.approx(other.mlp_density)
    assert one.counted(4) == other.counted(4)


@pytest.mark.parametrize("family", ["llama", "gemma"])
@pytest.mark.parametrize("metric", ["magnitude", "snip"])
def test_a_prompts_mask_is_made_at_the_prompt_and_kept(family, metric):
    """Gathered and masked decoding are one whole masked pass after a dense prompt."""
    engine = engine_of(family)
    policy = make_policy("prompt_attribution", {"keep": 0.4, "metric": metric})
    ids = ids_of()
    hidden, reading = engine.hidden_states(policy, ids[None], prompt=PROMPT)
    expected = engine.anatomy.head.logits(hidden[0, PROMPT - 1 :])
    with ready_for(engine, policy) as model:
        for execution in ("gathered", "masked"):
            logits, decoding = decoded(model, policy, ids, execution=execution)
            torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-3)
            assert decoding.settle().mlp_density == pytest.approx(reading.mlp_density)


def test_state_goes_on_from_a_sparse_prompt_as_in_one_pass(llama):
    policy = make_policy("dip_ca", {"density": 0.5, "gamma": 0.2, "cache_share": 0.3})
    ids = ids_of()
    hidden, reading = llama.hidden_states(policy, ids[None])
    expected = llama.anatomy.head.logits(hidden[0, PROMPT - 1 :])
    with ready_for(llama, policy) as model:
        logits, decoding = decoded(model, policy, ids, prefill="sparse")
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-3)
    assert decoding.settle().counted(4) == reading.counted(4)


def test_int8_weights_are_read_as_they_were_rounded():
    engine = engine_of("llama")
    round_to_int8(engine.model)
    policy = make_policy("dip", {"density": 0.4})
    with ready_for(engine, policy, int8=True) as model:
        logits, decoding = decoded(model, DENSE, ids_of())
        gathered, _ = decoded(model, policy, ids_of())
        masked, _ = decoded(model, policy, ids_of(), execution="masked")
    assert decoding.loop == "lean"
    torch.testing.assert_close(logits, whole(engine, ids_of()), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(gathered, masked, rtol=1e-3, atol=1e-3)
    assert model.lean is not None
    assert model.lean.head.values.dtype == "int8"
    # Two layouts of the MLPs (dense and DIP), one of the rest: a byte a weight, and the scales.
    linear = sum(
        p.numel() for name, p in engine.model.named_parameters() if "proj" in name or "embed" in name
    )
    assert linear < model.lean.copied_bytes < 2.2 * linear


def test_int8_without_a_lean_loop_gets_a_sentence():
    asked = "int8 weights are read by the lean decode loop alone"
    with pytest.raises(UserError, match=asked), ready_for(engine_of("gemma"), DENSE, int8=True):
        pass


def test_what_cannot_be_timed_gets_a_sentence(llama):
    with ready_for(llama, DENSE) as model:
        with pytest.raises(UserError, match="GLU oracle is an oracle"):
            Decoding(model, make_policy("glu_oracle", {"keep": 0.5}), 32)
        with pytest.raises(UserError, match="Random prunes attention weights, which no decoding kernel here"):
            Decoding(model, make_policy("random", {"keep": 0.5, "units": "heads"}), 32)
        with pytest.raises(UserError, match="passes of its own over what was decoded"):
            Decoding(model, make_policy("refreshed_attribution", {"keep": 0.5}), 32)
        with pytest.raises(UserError, match="makes its masks of a prompt that runs dense"):
            Decoding(model, make_policy("prompt_attribution", {"keep": 0.5}), 32, prefill="sparse")
        with pytest.raises(UserError, match="129 tokens, but the model's context holds 128"):
            Decoding(model, DENSE, 129)


def test_layers_say_their_density_of_the_last_token(llama):
    policy = make_policy("dip", {"input_keep": [0.25, 0.5, 1.0], "neuron_keep": 0.5})
    with ready_for(llama, policy) as model:
        _, decoding = decoded(model, policy, ids_of(PROMPT + 1))
        assert decoding.layer_densities() == pytest.approx([(2 * k + 0.5) / 3 for k in (0.25, 0.5, 1.0)])
