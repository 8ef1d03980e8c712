"""DIP-CA: one pass equals token by token, γ = 1 is DIP, sequences do not see each other."""

from __future__ import annotations

import pytest
import torch

from backend.errors import UserError
from backend.evaluation.fidelity import DenseReference, evaluate
from backend.evaluation.windows import Windows
from backend.experiments.laboratory import Laboratory
from backend.models.anatomy import find_anatomy
from backend.residency import MaskTrace, miss_curve_of, total
from backend.sparsity import make_policy
from backend.sparsity.dip import split_density
from backend.sparsity.engine import MaskedEngine
from backend.sparsity.selection import kept_count
from tests.models_tiny import tiny_model
from tests.residency.reference import reference_choice

IDS = torch.randint(3, 100, (1, 40), generator=torch.Generator().manual_seed(9))
SETTINGS = [
    {"density": 0.5, "gamma": 0.2, "cache_share": 0.4},
    {"density": 0.5, "gamma": 0.5, "cache_share": 0.7, "eviction": "lfu"},
    {"density": 0.3, "gamma": 0.1, "cache_share": 0.3, "eviction": "random", "seed": 3},
    {
        "density": 0.4,
        "gamma": 0.0,
        "fixed_top_n": 4,
        "warm_up": True,
        "input_cache": 0.8,
        "neuron_cache": 0.2,
    },
]


class Masks:
    """Keeps every mask and the values it masks, by layer and site."""

    def __init__(self):
        self.masks, self.values = {}, {}

    def __call__(self, layer, site, mask, values):
        self.masks.setdefault((layer, site), []).append(mask)
        self.values.setdefault((layer, site), []).append(values)

    def of(self, found):
        return {key: torch.cat(parts, dim=1) for key, parts in found.items()}


@pytest.fixture(scope="module")
def double() -> MaskedEngine:
    """In float64 one pass and single tokens round so nearly alike that no near-tie falls the other way."""
    model, _ = tiny_model("llama")
    model = model.double()
    return MaskedEngine(model, find_anatomy(model))


def in_one_pass(engine, policy, ids, **options):
    seen = Masks()
    with torch.inference_mode(), engine.applied(policy, watch=seen, **options) as reading:
        logits = engine.model(input_ids=ids, use_cache=False).logits
    return logits, seen.of(seen.masks), reading


def token_by_token(engine, policy, ids):
    seen, cache, steps = Masks(), None, []
    with torch.inference_mode(), engine.applied(policy, watch=seen) as reading:
        for token in ids[0]:
            output = engine.model(input_ids=token.view(1, 1), past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            steps.append(output.logits)
    return torch.cat(steps, dim=1), seen.of(seen.masks), reading


def assert_same_run(got, expected, tolerance):
    logits, masks, reading = got
    torch.testing.assert_close(logits, expected[0], rtol=tolerance, atol=tolerance)
    assert masks.keys() == expected[1].keys()
    for hook in masks:
        assert torch.equal(masks[hook], expected[1][hook]), hook
    assert reading.counted(4) == expected[2].counted(4)


@pytest.mark.parametrize("settings", SETTINGS)
def test_one_pass_equals_token_by_token(double, settings):
    policy = make_policy("dip_ca", settings)
    assert_same_run(in_one_pass(double, policy, IDS), token_by_token(double, policy, IDS), 1e-9)


@pytest.mark.real_model
def test_one_pass_equals_token_by_token_on_the_real_model(real_home):
    subject = Laboratory(real_home).subject("smollm2-135m", "float32")
    model = subject.loaded.model.double()
    engine = MaskedEngine(model, find_anatomy(model))
    text = "The lighthouse keeper counted the ships that passed in the night, and wrote each one down. "
    ids = subject.loaded.tokenizer(4 * text, return_tensors="pt").input_ids[:, :64]
    policy = make_policy("dip_ca", {"density": 0.5, "gamma": 0.2, "cache_share": 0.5})
    assert_same_run(in_one_pass(engine, policy, ids), token_by_token(engine, policy, ids), 1e-8)


@pytest.mark.parametrize("settings", [each for each in SETTINGS if each.get("eviction") != "random"])
def test_every_hooks_masks_equal_the_reference(double, settings):
    policy = make_policy("dip_ca", settings)
    seen = Masks()
    double.hidden_states(policy, IDS, watch=seen)
    for (layer, site), values in seen.of(seen.values).items():
        scores = values[0].abs().float().numpy()
        share = dict(zip(("mlp_in", "mlp_mid"), split_density(policy.density), strict=True))[site]
        own = {"mlp_in": policy.input_cache, "mlp_mid": policy.neuron_cache}[site]
        capacity = int((policy.cache_share if own is None else own) * scores.shape[1])
        gammas = [
            1 - (1 - policy.gamma) * (1 - policy.gamma ** (t / 4)) if policy.warm_up else policy.gamma
            for t in range(len(scores))
        ]
        k = kept_count(share, scores.shape[1])
        expected, _ = reference_choice(
            scores, k, gammas, capacity, policy.eviction, exempt=policy.fixed_top_n
        )
        assert (seen.of(seen.masks)[layer, site][0].numpy() == expected).all(), (layer, site)


@pytest.mark.parametrize("cache_share", [0.0, 0.3, 1.0])
def test_gamma_one_is_plain_dip_bit_for_bit(llama, cache_share):
    expected, dip = llama.hidden_states(make_policy("dip", {"density": 0.4}), IDS)
    policy = make_policy("dip_ca", {"density": 0.4, "gamma": 1, "cache_share": cache_share})
    got, reading = llama.hidden_states(policy, IDS)
    assert torch.equal(got, expected)
    assert reading.mlp_density == dip.mlp_density


def test_hit_rates_at_gamma_one_are_those_of_plain_dips_miss_curve(llama):
    seen = Masks()
    llama.hidden_states(make_policy("dip", {"density": 0.4}), IDS, watch=seen)
    masks, values = seen.of(seen.masks), seen.of(seen.values)
    traces = {hook: MaskTrace.from_masks(masks[hook][0].numpy(), values[hook][0].numpy()) for hook in masks}
    for eviction in ("lru", "lfu", "random"):
        for share in (0.25, 0.5, 0.75):
            policy = make_policy(
                "dip_ca", {"density": 0.4, "gamma": 1, "cache_share": share, "eviction": eviction}
            )
            counted = llama.hidden_states(policy, IDS)[1].counted(4)
            for site, size in (("mlp_in", 48), ("mlp_mid", 80)):
                curve = total(miss_curve_of(traces[layer, site], eviction) for layer in llama.anatomy.mlps)
                if eviction == "random":  # other draws, about as many hits
                    assert counted[f"hit_rate_{site}"][0] == pytest.approx(
                        1 - curve.miss_rate(int(share * size)), abs=0.05
                    )
                else:
                    assert counted[f"hit_rate_{site}"][0] == pytest.approx(
                        1 - curve.miss_rate(int(share * size))
                    )


def test_rows_of_a_batch_do_not_see_each_other(double):
    ids = torch.cat([IDS, IDS.flip(1)])
    policy = make_policy("dip_ca", SETTINGS[2])
    _, together, _ = in_one_pass(double, policy, ids, sequences=(4, 5))
    for row in (0, 1):
        _, alone, _ = in_one_pass(double, policy, ids[row : row + 1], sequences=(4 + row,))
        assert all(torch.equal(together[hook][row], alone[hook][0]) for hook in alone)


def test_caches_are_empty_at_each_sequences_start(llama):
    policy = make_policy("dip_ca", SETTINGS[0])
    first, once = llama.hidden_states(policy, IDS)
    again, twice = llama.hidden_states(policy, IDS)
    assert torch.equal(first, again)
    assert once.counted(4) == twice.counted(4)
    _, one_token = llama.hidden_states(policy, IDS[:, :1])
    assert one_token.counted(4)["hit_rate"][0] == 0


def test_density_does_not_depend_on_the_cache(llama):
    _, dip = llama.hidden_states(make_policy("dip", {"density": 0.5}), IDS)
    for settings in SETTINGS[:2]:
        _, reading = llama.hidden_states(make_policy("dip_ca", settings), IDS)
        assert reading.mlp_density == dip.mlp_density


def test_what_was_loaded_is_measured_and_adds_up_over_windows(llama):
    policy = make_policy("dip_ca", SETTINGS[0])
    windows = Windows(torch.cat([IDS, IDS.flip(1)]), (1, 1))
    *_, result = evaluate(llama, policy, DenseReference(windows))
    found = {each["metric"]: each for each in result.measurements(2)}
    readings = [
        llama.hidden_states(policy, row[None], sequences=(i,))[1] for i, row in enumerate(windows.ids)
    ]
    rates = [reading.counted(2)["hit_rate"][0] for reading in readings]
    assert found["hit_rate"]["value"] == pytest.approx(sum(rates) / 2)
    assert found["hit_rate"]["unit"] == "share of weights chosen"
    mlp, layers = llama.anatomy.mlps[0], llama.anatomy.layers
    k_in, k_glu = (
        kept_count(share, size)
        for share, size in zip(split_density(0.5), (mlp.hidden_size, mlp.neurons), strict=True)
    )
    missed = [1 - found[f"hit_rate_{site}"]["value"] for site in ("mlp_in", "mlp_mid")]
    weights = layers * (missed[0] * k_in * 2 * mlp.neurons + missed[1] * k_glu * mlp.hidden_size)
    assert found["miss_bytes_per_token"]["value"] == pytest.approx(2 * weights)
    assert found["miss_bytes_per_token"]["unit"] == "B/token"
    assert found["miss_bytes_per_token"]["n"] == 80


def test_policies_without_caches_count_nothing(llama):
    _, reading = llama.hidden_states(make_policy("dip", {"density": 0.5}), IDS)
    assert reading.counted(4) == {}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"density": 0.5, "gamma": 0}, "gamma 0 would freeze the cache.*fixed_top_n above 0"),
        ({"density": 0.5, "gamma": 1.5}, "gamma: Input should be less than or equal to 1"),
        ({"density": 0.5, "cache_share": 2}, "cache_share"),
        ({"density": 0.5, "eviction": "belady"}, "'lru', 'lfu' or 'random'"),
        ({}, "dip_ca: give density, or both input_keep and neuron_keep"),
    ],
)
def test_settings_that_make_no_sense_get_one_sentence(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        make_policy("dip_ca", settings)
