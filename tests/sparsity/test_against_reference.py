"""The engine against slow, obvious loops written from the method table, neuron by neuron."""

import numpy as np
import pytest
import torch

from backend.models.anatomy import find_anatomy
from backend.sparsity import make_policy
from backend.sparsity.dip import split_density
from backend.sparsity.engine import MaskedEngine
from tests.models_tiny import GATED_FAMILIES, tiny_model

IDS = torch.randint(1, 100, (1, 7), generator=torch.Generator().manual_seed(5))
CASES = [
    ("glu_pruning", {"keep": 0.3}),
    ("glu_oracle", {"keep": 0.3}),
    ("gate_pruning", {"keep": 0.3}),
    ("up_pruning", {"keep": 0.3}),
    ("magnitude_norm", {"keep": 0.3}),
    ("dip", {"density": 0.4}),
    ("dip", {"input_keep": 0.7, "neuron_keep": 0.2}),
]


def largest(scores, k):
    kept = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:k]
    return np.isin(np.arange(len(scores)), kept)


def reference_mlp(name, settings, x, mlp):
    """One token through one MLP, in numpy, as the table of the DIP paper states it."""
    w_g, w_u, w_d = (w.detach().numpy() for w in (mlp.gate_weight, mlp.up_weight, mlp.down_weight))
    act = lambda g: mlp.activation(torch.from_numpy(g)).numpy()  # noqa: E731
    count = lambda share, size: max(1, round(share * size))  # noqa: E731
    n = mlp.neurons
    if name == "dip":
        shares = (settings["input_keep"], settings["neuron_keep"]) if "input_keep" in settings else None
        keep_in, keep_glu = shares or split_density(settings["density"])
        x = x * largest(np.abs(x), count(keep_in, len(x)))
        a = act(w_g @ x) * (w_u @ x)
        return w_d @ (a * largest(np.abs(a), count(keep_glu, n)))
    gate, up = act(w_g @ x), w_u @ x
    score = {
        "glu_pruning": np.abs(gate * up),
        "glu_oracle": np.abs(gate * up),
        "gate_pruning": np.abs(gate),
        "up_pruning": np.abs(up),
        "magnitude_norm": np.abs(gate * up) * np.sqrt((w_d**2).sum(0)),
    }[name]
    return w_d @ (gate * up * largest(score, count(settings["keep"], n)))


@pytest.mark.parametrize(("name", "settings"), CASES)
@pytest.mark.parametrize("family", GATED_FAMILIES)
def test_every_mlp_call_equals_the_reference(family, name, settings):
    model, _ = tiny_model(family)
    engine = MaskedEngine(model, find_anatomy(model))
    calls = []
    with torch.inference_mode(), engine.applied(make_policy(name, settings)):
        for mlp in engine.anatomy.mlps.values():
            handle = mlp.module.register_forward_hook(lambda m, a, y, mlp=mlp: calls.append((mlp, a[0], y)))
            handles = [handle]
        model(IDS)
        for handle in handles:
            handle.remove()
    assert calls
    for mlp, x, y in calls:
        for token in range(x.shape[1]):
            expected = reference_mlp(name, settings, x[0, token].numpy(), mlp)
            np.testing.assert_allclose(y[0, token].numpy(), expected, rtol=1e-4, atol=1e-5)
