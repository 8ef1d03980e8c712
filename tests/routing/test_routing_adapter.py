"""Every family's routers are found, checked, taken over and given back; what does not fit is refused."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from backend.errors import UserError
from backend.models.anatomy import find_anatomy
from backend.routing.anatomy import find_moe
from backend.routing.hooks import rerouted
from tests.models_tiny import tiny_model
from tests.moe_tiny import EXPERTS, MOE_FAMILIES, tiny_moe

IDS = torch.randint(3, 100, (1, 24), generator=torch.Generator().manual_seed(4))


def softmax(values):
    top = max(values)
    powers = [math.exp(v - top) for v in values]
    return [p / sum(powers) for p in powers]


def sigmoid(values):
    return [1 / (1 + math.exp(-v)) for v in values]


def over_chosen(z, chosen):
    return softmax([z[e] for e in chosen])


def plain(z, chosen, scale=1.0):
    return [softmax(z)[e] * scale for e in chosen]


def normalised_sigmoid(z, chosen, scale=1.0, floor=0.0):
    s = [sigmoid(z)[e] for e in chosen]
    return [v / (sum(s) + floor) * scale for v in s]


def sparsemixer(z, chosen, jitter=0.01):
    found, gone = [], set()
    for expert in chosen:
        top = z[expert]
        band = [
            i for i in range(len(z))
            if i not in gone and (i == expert or z[i] <= top)
            and (top - z[i]) / max(abs(z[i]), top) <= 2 * jitter
        ]  # fmt: skip
        found.append(softmax([z[i] for i in band])[band.index(expert)] if expert in band else 0.0)
        gone.add(expert)
    return found


REFERENCE = {  # each family's weights of any chosen experts, by its published formula
    "mixtral": over_chosen,
    "phimoe": sparsemixer,
    "qwen2_moe": plain,
    "qwen3_moe": over_chosen,
    "olmoe": plain,
    "deepseek_v2": lambda z, chosen: plain(z, chosen, 2.5),
    "deepseek_v3": lambda z, chosen: normalised_sigmoid(z, chosen, 2.5),
    "granitemoe": over_chosen,
    "gpt_oss": over_chosen,
    "qwen3_next": over_chosen,
    "glm4_moe": lambda z, chosen: normalised_sigmoid(z, chosen, 1.5),
    "dots1": lambda z, chosen: normalised_sigmoid(z, chosen, 2.0),
    "ernie4_5_moe": over_chosen,
    "lfm2_moe": lambda z, chosen: normalised_sigmoid(z, chosen, floor=1e-6),
    "jamba": plain,
    "minimax": over_chosen,
    "hunyuan_v1_moe": over_chosen,
    "flex_olmo": plain,
}


class Seen:
    """What routers said and what the experts were given, by layer."""

    def __init__(self, anatomy):
        self.logits, self.experts, self.weights, self.handles = {}, {}, {}, []
        for index, layer in anatomy.layers.items():
            self.handles += [
                layer.router.register_forward_hook(
                    lambda m, a, out, at=index: self.logits.update({at: out[0]})
                ),
                layer.experts.register_forward_pre_hook(
                    lambda m, a, k, at=index: self._given(at, *(*a, *k.values())), with_kwargs=True
                ),
            ]

    def _given(self, at, _hidden, experts, weights):
        self.experts[at], self.weights[at] = experts, weights

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for handle in self.handles:
            handle.remove()


def hidden(model):
    with torch.inference_mode():
        return model.get_decoder()(input_ids=IDS, use_cache=False).last_hidden_state


@pytest.fixture(params=MOE_FAMILIES)
def moe(request):
    model = tiny_moe(request.param)
    return SimpleNamespace(family=request.param, model=model, anatomy=find_moe(model))


def skip_the_first(layer, routes):
    """The ranks 2 … K+1, as far as the model allows that many; and one slot less for every third token."""
    shift = min(1, int(routes.allowed.min()) - routes.k)
    chosen = routes.order[:, shift : shift + routes.k].copy()
    chosen[::3, -1] = -1
    return chosen


def test_found_by_structure_and_restored(moe):
    before = hidden(moe.model)
    layers = moe.anatomy.layers
    assert len(layers) >= 2
    assert {layer.size for layer in layers.values()} == {EXPERTS}
    for layer in layers.values():
        assert layer.expert_weights * EXPERTS == sum(p.numel() for p in layer.experts.parameters())
    with rerouted(layers, skip_the_first):
        changed = hidden(moe.model)
    assert not torch.equal(changed, before)
    assert torch.equal(hidden(moe.model), before)
    assert not any(layer.router._forward_hooks for layer in layers.values())


def test_original_choice_gives_the_original_model_and_fires_once(moe):
    with rerouted(moe.anatomy.layers, lambda layer, routes: routes.original) as fired:
        got = hidden(moe.model)
    torch.testing.assert_close(
        got, hidden(moe.model), rtol=1e-5, atol=1e-6
    )  # slots may come in another order
    assert set(fired.values()) == {1}


def test_ranks_begin_with_the_models_own_experts(moe):
    ranked = {}

    def note(layer, routes):
        ranked[layer.layer] = routes
        return routes.original

    with Seen(moe.anatomy) as seen, rerouted(moe.anatomy.layers, note):
        hidden(moe.model)
    own = {}
    handles = [
        layer.router.register_forward_hook(lambda m, a, out, at=i: own.update({at: out[2]}))
        for i, layer in moe.anatomy.layers.items()
    ]
    hidden(moe.model)
    for handle in handles:
        handle.remove()
    for index, routes in ranked.items():
        assert (np.sort(routes.original, 1) == np.sort(own[index].numpy(), 1)).all()
        by_rank = np.take_along_axis(routes.scores, routes.order, 1)
        assert (by_rank[:, :-1] >= by_rank[:, 1:]).all()
        assert (np.sort(routes.order, 1) == np.arange(EXPERTS)).all()
        np.testing.assert_allclose(routes.probabilities.sum(1), 1, rtol=1e-5)
        assert seen.logits[index].shape == routes.scores.shape


def test_rerouted_experts_are_weighed_by_the_original_logits(moe):
    with Seen(moe.anatomy) as seen, rerouted(moe.anatomy.layers, skip_the_first):
        hidden(moe.model)
    for index in moe.anatomy.layers:
        z, experts, weights = (
            each.double() for each in (seen.logits[index], seen.experts[index], seen.weights[index])
        )
        for t in range(len(z)):
            count = experts.shape[1] - (t % 3 == 0)
            chosen = experts[t, :count].long().tolist()
            expected = REFERENCE[moe.family](z[t].tolist(), chosen) + [0.0] * (experts.shape[1] - count)
            np.testing.assert_allclose(weights[t].numpy(), expected, rtol=2e-5, atol=1e-7)
            assert len(set(chosen)) == count


@pytest.mark.parametrize("family", ["deepseek_v2", "deepseek_v3"])
def test_only_open_groups_may_be_chosen_from(family):
    model = tiny_moe(family)
    anatomy = find_moe(model)
    seen = []
    with rerouted(anatomy.layers, lambda layer, routes: seen.append(routes) or routes.original):
        hidden(model)
    for routes in seen:  # 2 of 4 groups of 2 experts are open
        assert (routes.allowed == 4).all()
        allowed = np.isfinite(routes.scores).reshape(len(routes.scores), 4, 2)
        assert (allowed.all(2) | ~allowed.any(2)).all()


@pytest.mark.parametrize("flag", [False, True])
def test_renormalisation_is_found_not_believed(flag):
    layer = find_moe(tiny_moe("qwen2_moe", norm_topk_prob=flag)).layers[0]
    assert layer.weighting.normalise == ("sum" if flag else "none")
    assert find_moe(tiny_moe("deepseek_v2", norm_topk_prob=flag)).layers[1].weighting.normalise == "none"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize(
    "family", ["mixtral", "qwen3_moe", "granitemoe", "gpt_oss", "deepseek_v3", "lfm2_moe"]
)
def test_other_precisions_pass_the_check_too(family, dtype):
    assert find_moe(tiny_moe(family, dtype=dtype)).k in (2, 4)


def test_a_router_that_weighs_otherwise_is_refused():
    model = tiny_moe("olmoe")
    router = model.model.layers[1].mlp.gate
    own = router.forward
    router.forward = lambda x: (lambda z, w, i: (z, w**2, i))(*own(x))
    with pytest.raises(UserError, match=r"weighs the experts.*layer 1"):
        find_moe(model)


def test_a_router_that_ranks_otherwise_is_refused():
    model = tiny_moe("olmoe")
    router = model.model.layers[0].mlp.gate

    def forward(x):
        z = torch.nn.functional.linear(x.reshape(-1, x.shape[-1]), router.weight)
        worst = z.topk(4, largest=False).indices
        return z, z.softmax(-1, dtype=torch.float).gather(1, worst), worst

    router.forward = forward
    with pytest.raises(UserError, match=r"ranks its experts.*layer 0"):
        find_moe(model)


def test_a_block_that_bypasses_its_router_is_refused():
    model = tiny_moe("olmoe")
    block = model.model.layers[2].mlp
    block.forward = lambda x: x
    with pytest.raises(UserError, match="layer 2 ran 0 times"):
        find_moe(model)


@pytest.mark.parametrize(("family", "name"), [("llama4_text", "Llama 4"), ("dbrx", "DBRX")])
def test_families_that_do_not_fit_are_refused_by_name(family, name):
    with pytest.raises(UserError, match=name):
        find_moe(tiny_moe(family))


def test_what_bypasses_the_hook_is_refused():
    compiled = tiny_moe("olmoe")
    compiled.compile()
    with pytest.raises(UserError, match=r"without torch\.compile"):
        find_moe(compiled)
    with pytest.raises(UserError, match=r"without torch\.compile"):
        find_moe(torch.compile(tiny_moe("olmoe")))
    kernels = tiny_moe("olmoe")
    kernels._use_kernels = True
    with pytest.raises(UserError, match="use_kernels=True"):
        find_moe(kernels)
    packed = tiny_moe("gpt_oss")
    packed.config.quantization_config = {"quant_method": "mxfp4"}
    with pytest.raises(UserError, match="MXFP4"):
        find_moe(packed)


def test_dense_models_and_mixtures_are_told_apart():
    with pytest.raises(UserError, match="dense model: it has no experts"):
        find_moe(tiny_model("llama")[0])
    for family in ("olmoe", "deepseek_v3", "qwen2_moe"):
        with pytest.raises(UserError, match=r"mixture of experts.*routing policy"):
            find_anatomy(tiny_moe(family))
