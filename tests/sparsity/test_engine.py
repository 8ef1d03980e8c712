"""The engine: four kinds of policy, nothing left behind, batches and chunks that change nothing."""

from __future__ import annotations

import pytest
import torch

from backend.models.anatomy import find_anatomy
from backend.sparsity import METHODS, Policy, make_policy
from backend.sparsity.engine import MaskedEngine
from backend.sparsity.selection import top_k_mask
from tests.models_tiny import GATED_FAMILIES, tiny_model

IDS = torch.randint(1, 100, (1, 8), generator=torch.Generator().manual_seed(7))


class Facts(Policy):
    title = summary = equation = density_formula = paper = "a test's"


class AttentionInput(Facts):
    """A policy of sites: it halves the attention's inputs and outputs, and nothing else."""

    name = "test_attention"

    def attn_in(self, x, context):
        return top_k_mask(x.abs(), x.shape[-1] // 2)

    def attn_out(self, x, context):
        return top_k_mask(x.abs(), x.shape[-1] // 4)


class SeenBefore(Facts):
    """A policy with state: it keeps the neurons that the sequence has not kept before, one a token."""

    name = "test_state"
    needs = frozenset({"gate", "up"})

    def start(self, layer, sequences):
        return [set() for _ in sequences]

    def mlp_mid(self, activations, context):
        mask = torch.zeros_like(activations.neurons, dtype=torch.bool)
        for row, seen in enumerate(context.state):
            for token, scores in enumerate(activations.neurons[row].abs()):
                fresh = next(
                    i for i in scores.argsort(descending=True, stable=True).tolist() if i not in seen
                )
                seen.add(fresh)
                mask[row, token, fresh] = True
        return mask


class CalibratedThreshold(Facts):
    """A policy with calibration: a threshold per layer, the median gate of the calibration text (CATS)."""

    name = "test_calibration"
    needs = frozenset({"gate"})

    def observer(self):
        return MedianGate()

    def mlp_mid(self, activations, context):
        return activations.gate.abs() > context.calibration[context.layer]


class MedianGate:
    def __init__(self):
        self.seen: dict[int, list[torch.Tensor]] = {}

    def observe(self, mlp, activations):
        self.seen.setdefault(mlp.layer, []).append(activations.gate.abs().flatten())

    def fit(self):
        return {layer: torch.cat(parts).median() for layer, parts in self.seen.items()}


class GradientOracle(Facts):
    """An oracle: keeps neurons by |gradient × activation| of a dense backward pass over the same tokens."""

    name = "test_oracle"
    realisable = False
    label_free = False

    def prepare(self, dense):
        model, anatomy, input_ids = dense.model, dense.anatomy, dense.input_ids
        inputs: dict[int, torch.Tensor] = {}

        def keep(layer):
            def hook(_module, args):
                inputs[layer] = args[0].requires_grad_()
                return (inputs[layer],)

            return hook

        handles = [m.module.down_proj.register_forward_pre_hook(keep(i)) for i, m in anatomy.mlps.items()]
        with torch.enable_grad():
            logits = model(input_ids=input_ids, use_cache=False).logits[0, -1]
            gradients = torch.autograd.grad(logits.log_softmax(-1).max(), list(inputs.values()))
        for handle in handles:
            handle.remove()
        return {layer: (g * inputs[layer]).abs() for layer, g in zip(inputs, gradients, strict=True)}

    def mlp_mid(self, activations, context):
        return top_k_mask(context.prepared[context.layer], 8)


def test_a_policy_of_attention_sites_is_accounted_on_the_whole_model(llama):
    dense, _ = llama.hidden_states(make_policy("dense", {}), IDS)
    got, reading = llama.hidden_states(AttentionInput(), IDS)
    config = llama.model.config
    head_size = config.hidden_size // config.num_attention_heads
    q = config.hidden_size * config.hidden_size
    kv = 2 * config.hidden_size * config.num_key_value_heads * head_size
    skipped = config.num_hidden_layers * (0.5 * (q + kv) + 0.75 * q)
    assert reading.mlp_density == 1
    assert reading.weights_read == pytest.approx(llama.anatomy.weights_per_token - skipped)
    assert not torch.allclose(got, dense)


def test_a_policy_with_state_starts_each_sequence_afresh_and_goes_on_within_it(llama):
    whole, _ = llama.hidden_states(SeenBefore(), IDS)
    again, reading = llama.hidden_states(SeenBefore(), IDS)
    assert torch.equal(whole, again)
    assert reading.mlp_density == pytest.approx((2 + 1 / llama.anatomy.mlps[0].neurons) / 3)


@pytest.mark.parametrize(
    "policy", [SeenBefore(), make_policy("random", {"keep": 0.3}), make_policy("dip", {"density": 0.5})]
)
def test_token_by_token_decoding_in_one_block_equals_one_pass(llama, policy):
    with torch.inference_mode():
        with llama.applied(policy) as at_once:
            expected = llama.model(input_ids=IDS, use_cache=False).logits
        with llama.applied(policy) as stepwise:
            cache, steps = None, []
            for token in IDS[0]:
                output = llama.model(input_ids=token.view(1, 1), past_key_values=cache, use_cache=True)
                cache = output.past_key_values
                steps.append(output.logits)
    torch.testing.assert_close(torch.cat(steps, dim=1), expected, rtol=1e-4, atol=1e-5)
    assert stepwise.mlp_density == pytest.approx(at_once.mlp_density)
    assert stepwise.tokens == at_once.tokens == IDS.numel()


def test_a_policy_with_calibration_holds_its_share_on_the_text_it_was_fitted_on(llama):
    policy = CalibratedThreshold()
    calibration = llama.calibrate(policy, [IDS])
    _, reading = llama.hidden_states(policy, IDS, calibration=calibration)
    # Exactly half of the gates lie above their median in the first layer, which masks cannot have changed.
    assert reading.layer_density()[0] == pytest.approx((1 + 2 * 0.5) / 3, abs=0.01)


def test_a_policy_without_calibration_gets_none(llama):
    assert llama.calibrate(make_policy("dense", {}), [IDS]) is None


def test_an_oracle_sees_the_model_before_the_masked_run_and_is_marked_as_one(llama):
    dense, _ = llama.hidden_states(make_policy("dense", {}), IDS)
    got, reading = llama.hidden_states(GradientOracle(), IDS)
    assert reading.mlp_density == pytest.approx(8 / llama.anatomy.mlps[0].neurons)
    assert not torch.allclose(got, dense)
    assert GradientOracle().how == "oracle"
    assert make_policy("dip", {"density": 0.5}).how == "measured"


def test_a_policy_that_reads_what_it_did_not_ask_for_fails_instead_of_being_miscounted(llama):
    class Sneaky(Facts):
        name = "test_sneaky"
        needs = frozenset({"gate"})

        def mlp_mid(self, activations, context):
            return activations.up.abs() > 0

    with pytest.raises(AttributeError):
        llama.hidden_states(Sneaky(), IDS)


@pytest.mark.parametrize("family", GATED_FAMILIES)
def test_the_model_is_as_it_was_after_use_even_after_a_failure(family):
    model, _ = tiny_model(family)
    engine = MaskedEngine(model, find_anatomy(model))
    with torch.inference_mode():
        before = model(IDS).logits
        engine.hidden_states(AttentionInput(), IDS)
        engine.calibrate(CalibratedThreshold(), [IDS])
        with (
            pytest.raises(RuntimeError, match="on purpose"),
            engine.applied(make_policy("dip", {"density": 0.1})),
        ):
            raise RuntimeError("on purpose")
        assert torch.equal(model(IDS).logits, before)
    assert all("forward" not in vars(module) for module in model.modules())
    assert all(not module._forward_pre_hooks for module in model.modules())


def test_rows_of_a_batch_do_not_see_each_other(llama):
    pair = torch.cat([IDS, IDS.flip(1)])
    for name in METHODS:
        policy = METHODS[name].at_density(0.8) if name != "dense" else make_policy("dense", {})
        fitted = llama.calibrate(policy, [IDS])
        together, _ = llama.hidden_states(policy, pair, sequences=(4, 5), calibration=fitted)
        for row in (0, 1):
            alone, _ = llama.hidden_states(
                policy, pair[row : row + 1], sequences=(4 + row,), calibration=fitted
            )
            torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-4, atol=1e-5)


def test_random_draws_differ_by_seed_and_sequence_but_not_by_run(llama):
    def run(seed, sequence):
        return llama.hidden_states(
            make_policy("random", {"keep": 0.3, "seed": seed}), IDS, sequences=(sequence,)
        )[0]

    assert torch.equal(run(0, 0), run(0, 0))
    assert not torch.equal(run(0, 0), run(1, 0))
    assert not torch.equal(run(0, 0), run(0, 1))
