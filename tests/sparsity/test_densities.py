"""Measured densities equal the formulas of the method table; density 1 is the dense model, bit for bit."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.errors import UserError
from backend.sparsity import METHODS, make_policy
from backend.sparsity.dip import split_density
from backend.sparsity.selection import kept_count

IDS = torch.randint(1, 100, (2, 9), generator=torch.Generator().manual_seed(3))

FORMULAS = {
    "glu_pruning": lambda rho: (2 + rho) / 3,
    "magnitude_norm": lambda rho: (2 + rho) / 3,
    "glu_oracle": lambda rho: rho,
    "gate_pruning": lambda rho: (1 + 2 * rho) / 3,
    "up_pruning": lambda rho: (1 + 2 * rho) / 3,
    "random": lambda rho: rho,
    "dense_magnitude": lambda rho: rho,
    "dense_magnitude_norm": lambda rho: rho,
    "gradient": lambda rho: rho,
    "gxo": lambda rho: rho,
    "snip": lambda rho: rho,
    "corrected_gxo": lambda rho: rho,
    "integrated_gradients": lambda rho: rho,
    "expected_fisher": lambda rho: rho,
}


@pytest.mark.parametrize("name", FORMULAS)
@settings(max_examples=8, deadline=None)
@given(keep=st.floats(0.01, 1))
def test_measured_density_is_the_tables_formula(llama, name, keep):
    _, reading = llama.hidden_states(make_policy(name, {"keep": keep}), IDS, sequences=(0, 1))
    neurons = llama.anatomy.mlps[0].neurons
    rho = kept_count(keep, neurons) / neurons
    assert reading.mlp_density == pytest.approx(FORMULAS[name](rho), abs=1e-12)


@settings(max_examples=15, deadline=None)
@given(density=st.floats(0.02, 1))
def test_dip_reads_what_its_two_masks_keep(llama, density):
    _, reading = llama.hidden_states(make_policy("dip", {"density": density}), IDS)
    mlp = llama.anatomy.mlps[0]
    inputs, neurons = split_density(density)
    k_in, k_glu = kept_count(inputs, mlp.hidden_size), kept_count(neurons, mlp.neurons)
    assert reading.mlp_density == pytest.approx(
        (2 * k_in / mlp.hidden_size + k_glu / mlp.neurons) / 3, abs=1e-12
    )


def test_dip_split_has_the_papers_values():
    assert split_density(0.5) == pytest.approx((0.574, 0.351), abs=5e-4)
    assert split_density(0.8) == pytest.approx((0.841, 0.718), abs=5e-4)
    assert split_density(1) == (1, 1)


@given(st.floats(0.001, 1))
def test_dip_split_keeps_valid_shares_that_add_up_to_the_target(density):
    inputs, neurons = split_density(density)
    assert 0 < inputs <= 1
    assert 0 < neurons <= 1
    assert (2 * inputs + neurons) / 3 == pytest.approx(density)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "dense"])
def test_at_density_one_every_method_is_the_dense_model_bit_for_bit(llama, name):
    """Masks of ones multiply exactly and the model's own modules project, so not one ulp differs."""
    dense, _ = llama.hidden_states(make_policy("dense", {}), IDS)
    policy = METHODS[name].at_density(1.0)
    fitted = llama.calibrate(policy, [IDS])
    got, reading = llama.hidden_states(policy, IDS, sequences=(0, 1), calibration=fitted)
    assert torch.equal(got, dense)
    mlp = llama.anatomy.mlps[0]
    own = policy.own_weights(mlp.hidden_size, mlp.neurons) / mlp.weights
    assert reading.mlp_density == pytest.approx(1 + own, abs=1e-12)
    extra = policy.extra_reads + own * llama.anatomy.mlp_weights / llama.anatomy.weights_per_token
    assert reading.model_density == pytest.approx(1 + extra, abs=1e-12)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("dense", "predictor")])
@given(share=st.floats(0.05, 0.95))
def test_at_density_sets_the_expected_density(name, share):
    floor = METHODS[name].density_floor()
    density = floor + share * (1 - floor)
    assert METHODS[name].at_density(density).expected_density() == pytest.approx(density)


@pytest.mark.parametrize(
    ("name", "floor"), [("glu_pruning", 2 / 3), ("gate_pruning", 1 / 3), ("up_pruning", 1 / 3)]
)
def test_a_density_below_a_methods_floor_is_refused_in_a_sentence(name, floor):
    with pytest.raises(UserError, match=f"cannot reach an MLP density of 0.2: it reads {floor:.3g}"):
        METHODS[name].at_density(0.2)


def test_model_density_counts_attention_and_head_and_one_embedding_row(llama):
    model, anatomy = llama.model, llama.anatomy
    policy = make_policy("random", {"keep": 0.25})
    _, reading = llama.hidden_states(policy, IDS, sequences=(0, 1))
    all_weights = sum(parameter.numel() for parameter in model.parameters())
    if model.get_input_embeddings().weight is model.get_output_embeddings().weight:
        per_token = all_weights + model.config.hidden_size
    else:
        table = model.config.vocab_size * model.config.hidden_size
        per_token = all_weights - table + model.config.hidden_size
    mlp = 3 * model.config.hidden_size * model.config.intermediate_size * model.config.num_hidden_layers
    assert anatomy.weights_per_token == per_token
    assert reading.model_density == pytest.approx(1 - mlp * (1 - reading.mlp_density) / per_token)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "give density, or both input_keep and neuron_keep"),
        ({"density": 0.5, "input_keep": 0.5, "neuron_keep": 0.5}, "not both"),
        ({"density": 0}, "greater than 0"),
        ({"density": math.nan}, "finite"),
        ({"keep": 0.5}, "dip has no setting 'keep'; known: density, input_keep, neuron_keep"),
    ],
)
def test_wrong_settings_of_dip_get_one_sentence(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        make_policy("dip", settings)


def test_dip_takes_one_value_a_layer_and_says_when_they_do_not_fit(llama):
    layers = llama.anatomy.layers
    shares = [0.25 + 0.5 * layer / layers for layer in range(layers)]
    policy = make_policy("dip", {"input_keep": shares, "neuron_keep": 0.5})
    _, reading = llama.hidden_states(policy, IDS)
    mlp = llama.anatomy.mlps[0]
    expected = [
        (2 * kept_count(s, mlp.hidden_size) / mlp.hidden_size + kept_count(0.5, mlp.neurons) / mlp.neurons)
        / 3
        for s in shares
    ]
    assert list(reading.layer_density().values()) == pytest.approx(expected)
    with pytest.raises(
        UserError, match=f"given {layers + 1} values per layer, but the model has {layers} layers"
    ):
        llama.hidden_states(make_policy("dip", {"input_keep": [*shares, 0.5], "neuron_keep": 0.5}), IDS)
