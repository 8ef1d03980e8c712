"""CATS and the trained predictor: what is fitted, by slow references, and what it costs."""

import numpy as np
import pytest
import torch

from backend.errors import UserError
from backend.sparsity import Activations, make_policy
from backend.sparsity.predictor import train
from backend.sparsity.selection import kept_count

IDS = torch.randint(1, 100, (1, 60), generator=torch.Generator().manual_seed(8))


def gates(engine, ids):
    """act(W_g x) of the dense model by layer. # [T, n]"""
    found = {}
    handles = [
        mlp.module.register_forward_pre_hook(
            lambda _m, args, mlp=mlp: found.__setitem__(mlp.layer, mlp.activation(mlp.project(args[0])[0])[0])
        )
        for mlp in engine.anatomy.mlps.values()
    ]
    with torch.inference_mode():
        engine.model(ids, use_cache=False)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9])
def test_the_threshold_of_cats_is_the_quantile_of_the_gates(llama, keep):
    policy = make_policy("cats", {"keep": keep})
    fitted = llama.calibrate(policy, [IDS[:, :40], IDS[:, 40:]])
    first, second = gates(llama, IDS[:, :40]), gates(llama, IDS[:, 40:])
    for layer in llama.anatomy.mlps:
        ordered = np.sort(torch.cat([first[layer], second[layer]]).abs().numpy(), axis=None)
        threshold = float(fitted[f"{layer}.threshold"])
        quantile = ordered[round((1 - keep) * ordered.size)]
        assert quantile * (1 - 2**-11) <= threshold <= quantile
        assert (ordered >= threshold).mean() == pytest.approx(keep, abs=1e-3)


def test_cats_reads_what_its_threshold_lets_through(llama):
    policy = make_policy("cats", {"keep": 0.4})
    fitted = llama.calibrate(policy, [IDS])
    masks = {}
    _, reading = llama.hidden_states(
        policy, IDS, calibration=fitted, watch=lambda layer, site, mask, values: masks.setdefault(layer, mask)
    )
    shares = [float(mask.double().mean()) for mask in masks.values()]
    assert reading.mlp_density == pytest.approx(sum(1 + 2 * share for share in shares) / 3 / len(shares))
    assert shares[0] == pytest.approx(0.4, abs=0.02)
    assert len({int(row.sum()) for row in masks[0][0]}) > 1, "it varies from token to token"


def test_the_predictor_finds_neurons_that_its_input_tells(llama):
    """Those that matter have the largest W x of a low-rank W: it must learn nearly all of them."""
    draw = torch.Generator().manual_seed(3)
    x = torch.randn(1500, 24, generator=draw)
    ranked = x @ torch.randn(24, 4, generator=draw) @ torch.randn(4, 40, generator=draw)
    y = torch.zeros_like(ranked, dtype=torch.bool).scatter(1, ranked.topk(8).indices, value=True)
    policy = make_policy("predictor", {"rank": 8, "epochs": 40})
    first, second = train(x[:1200], y[:1200].float(), policy, 1)
    chosen = (x[1200:] @ first.T @ second.T).topk(8).indices
    assert float(y[1200:].gather(1, chosen).double().mean()) > 0.8


def test_it_is_trained_on_the_largest_contributions_and_ranks_by_b_a_x(llama):
    policy = make_policy("predictor", {"keep": 0.25, "rank": 16, "epochs": 1})
    observer = policy.observer()
    mlp = llama.anatomy.mlps[1]
    x = torch.randn(1, 6, mlp.hidden_size, generator=torch.Generator().manual_seed(1))
    neurons = torch.randn(1, 6, mlp.neurons, generator=torch.Generator().manual_seed(2))
    observer.observe(mlp, Activations(x=x, neurons=neurons))
    k = kept_count(0.25, mlp.neurons)
    inputs, labels = observer.examples(1, mlp.neurons)
    torch.testing.assert_close(inputs, x[0], rtol=1e-3, atol=1e-3)
    for token in range(6):
        sizes = [
            abs(float(neurons[0, token, i])) * float(mlp.down_weight[:, i].norm()) for i in range(mlp.neurons)
        ]
        largest = sorted(range(mlp.neurons), key=lambda i: -sizes[i])[:k]
        assert labels[token].nonzero()[:, 0].tolist() == sorted(largest)
    fitted = llama.calibrate(policy, [IDS])
    (context,) = (each for each in llama.contexts(policy, calibration=fitted).values() if each.layer == 1)
    mask = policy.mlp_mid(Activations(x=x), context)[0, 3]
    first, second = fitted["1.first"], fitted["1.second"]
    scores = [float(second[i] @ (first @ x[0, 3])) for i in range(mlp.neurons)]
    assert mask.nonzero()[:, 0].tolist() == sorted(sorted(range(mlp.neurons), key=lambda i: -scores[i])[:k])


def test_training_is_decided_by_its_seed(llama):
    def fitted(seed):
        policy = make_policy("predictor", {"rank": 4, "epochs": 1, "seed": seed})
        return llama.calibrate(policy, [IDS])["0.first"]

    assert torch.equal(fitted(0), fitted(0))
    assert not torch.equal(fitted(0), fitted(1))


def test_what_the_predictor_reads_is_counted(llama):
    policy = make_policy("predictor", {"keep": 0.25, "rank": 6, "epochs": 1})
    _, reading = llama.hidden_states(policy, IDS, calibration=llama.calibrate(policy, [IDS]))
    mlp = llama.anatomy.mlps[0]
    d, n = mlp.hidden_size, mlp.neurons
    assert reading.mlp_density == pytest.approx(0.25 + 6 * (d + n) / (3 * d * n))
    skipped = (1 - reading.mlp_density) * llama.anatomy.mlp_weights
    assert reading.weights_read == pytest.approx(llama.anatomy.weights_per_token - skipped)
    own = 6 * (d + n) * len(llama.anatomy.mlps)
    assert reading.bytes_per_token(4) == pytest.approx(4 * reading.weights_read)
    assert reading.bytes_per_token(1) == pytest.approx(reading.weights_read + 3 * own), "it stays float32"


@pytest.mark.parametrize("name", ["cats", "predictor"])
def test_without_its_fit_it_says_so_in_a_sentence(llama, name):
    with pytest.raises(UserError, match="has to be fitted on a calibration text first"):
        llama.hidden_states(make_policy(name, {}), IDS)
