"""Attribution metrics against slow loops, the identities between them, heads under GQA, and labels."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.errors import UserError
from backend.sparsity import METHODS, Activations, make_policy
from backend.sparsity.attribution import Attribution
from backend.sparsity.dense_pass import DensePass
from backend.sparsity.selection import kept_count

IDS = torch.randint(1, 100, (1, 9), generator=torch.Generator().manual_seed(2))
BY_LABEL = ("gradient", "gxo", "snip", "corrected_gxo", "integrated_gradients")
BY_TABLE = BY_LABEL[:4]
REALISABLE = ("prompt_attribution", "refreshed_attribution")
BY_DENSE_PASS = (*BY_LABEL, "dense_magnitude", "expected_fisher")


def neuron_reference(name, x, g, i):
    """One neuron's score, from the table of the paper. # x, g: lists of a layer's values"""
    return {
        "gradient": lambda: g[i],
        "gxo": lambda: g[i] * x[i],
        "snip": lambda: abs(g[i] * x[i]),
        "corrected_gxo": lambda: g[i] * x[i] + 0.5 * abs(x[i]) * sum(v * v for v in g) ** 0.5,
        "dense_magnitude": lambda: abs(x[i]),
    }[name]()


def head_reference(name, o, g, h):
    """One head's score. # o, g: [H][d_h]"""
    product = sum(a * b for a, b in zip(o[h], g[h], strict=True))
    length = sum(a * a for a in o[h]) ** 0.5
    whole = sum(v * v for head in g for v in head) ** 0.5
    return {
        "gradient": sum(g[h]) / len(g[h]),
        "gxo": product,
        "snip": abs(product),
        "corrected_gxo": product + 0.5 * length * whole,
        "dense_magnitude": length,
    }[name]


@pytest.mark.parametrize("name", [*BY_TABLE, "dense_magnitude"])
def test_scores_equal_the_formulas_of_the_table(llama, name):
    dense = DensePass(llama.model, llama.anatomy, IDS)
    got = make_policy(name, {}).scores(dense)
    x, g = dense.activations(), dense.gradients("own")
    size = llama.anatomy.attentions[0].head_size
    for layer, token in ((0, 3), (2, 8)):
        values, slopes = (part.neurons[layer][0, token].tolist() for part in (x, g))
        for neuron in (0, 17, 79):
            expected = neuron_reference(name, values, slopes, neuron)
            assert float(got.neurons[layer][0, token, neuron]) == pytest.approx(expected, rel=1e-4, abs=1e-9)
        outputs, slopes = (part.heads[layer][0, token].view(-1, size).tolist() for part in (x, g))
        assert len(outputs) == llama.model.config.num_attention_heads
        for head in range(len(outputs)):
            expected = head_reference(name, outputs, slopes, head)
            assert float(got.heads[layer][0, token, head]) == pytest.approx(expected, rel=1e-4, abs=1e-9)


def test_magnitude_times_norm_is_each_neurons_exact_share_of_the_output(llama):
    dense = DensePass(llama.model, llama.anatomy, IDS)
    got = make_policy("dense_magnitude_norm", {}).scores(dense).neurons[1][0, 4]
    x = dense.activations().neurons[1][0, 4]
    alone = [float((llama.anatomy.mlps[1].down_weight[:, i] * x[i]).norm()) for i in range(len(x))]
    assert got.tolist() == pytest.approx(alone, rel=1e-5)


def test_expected_fisher_is_the_mean_square_over_every_label(llama):
    """With many draws it comes near the exact expectation, which a loop over the vocabulary gives."""
    dense = DensePass(llama.model, llama.anatomy, IDS[:, :4])
    logits = llama.model(IDS[:, :4], use_cache=False).logits[0, -1]
    got = make_policy("expected_fisher", {"samples": 64}).scores(dense).neurons[0][0, -1]
    x = dense.activations().neurons[0][0, -1]
    tape = []
    handle = llama.anatomy.mlps[0].module.down_proj.register_forward_pre_hook(
        lambda _m, args: tape.append(args[0].detach().requires_grad_()) or (tape[0],)
    )
    with torch.enable_grad():
        log_p = llama.model(IDS[:, :4], use_cache=False).logits[0, -1].log_softmax(-1)
        handle.remove()
        exact = torch.zeros_like(x)
        for label, share in enumerate(logits.softmax(-1).tolist()):
            (g,) = torch.autograd.grad(log_p[label], tape, retain_graph=True)
            exact += share * (g[0, -1] * x) ** 2
    assert float(torch.corrcoef(torch.stack([got, exact]))[0, 1]) > 0.95
    assert float(got.sum()) == pytest.approx(float(exact.sum()), rel=0.5)


def test_identities_between_the_metrics(llama):
    dense = DensePass(llama.model, llama.anatomy, IDS)
    gxo, snip, corrected = (make_policy(n, {}).scores(dense) for n in ("gxo", "snip", "corrected_gxo"))
    for layer in gxo.neurons:
        for part in ("neurons", "heads"):
            plain, absolute, raised = (getattr(s, part)[layer] for s in (gxo, snip, corrected))
            assert torch.equal(absolute, plain.abs())
            assert bool((raised >= plain).all())


@pytest.mark.parametrize("name", BY_DENSE_PASS)
@pytest.mark.parametrize("units", ["mlp", "heads", "both"])
def test_what_is_kept_is_the_largest_and_heads_are_kept_whole(llama, name, units):
    policy = make_policy(name, {"keep": 0.5, "units": units})
    seen = {}
    _, reading = llama.hidden_states(
        policy, IDS, watch=lambda layer, site, mask, values: seen.setdefault(layer, mask)
    )
    dense = DensePass(llama.model, llama.anatomy, IDS)
    masks, scores = policy.prepare(dense), policy.scores(dense)
    assert reading.mlp_density == (1.0 if units == "heads" else 0.5)
    if units != "heads":
        for layer, mask in masks.neurons.items():
            assert torch.equal(seen[layer], mask)
            worst_kept = scores.neurons[layer].masked_fill(~mask, torch.inf).amin(-1)
            best_dropped = scores.neurons[layer].masked_fill(mask, -torch.inf).amax(-1)
            assert bool((worst_kept >= best_dropped).all())
    if units != "mlp":
        size = llama.anatomy.attentions[0].head_size
        heads = masks.heads[1].view(1, IDS.shape[1], -1, size)
        assert bool((heads.all(-1) == heads.any(-1)).all())
        assert bool((heads.all(-1).sum(-1) == 2).all())


def test_a_dropped_head_saves_its_query_and_output_weights_and_no_keys(llama):
    config = llama.model.config
    for policy in (make_policy("gxo", {"units": "heads"}), make_policy("random", {"units": "heads"})):
        _, reading = llama.hidden_states(policy, IDS)
        square = config.hidden_size * config.hidden_size
        saved = config.num_hidden_layers * 0.5 * 2 * square
        assert reading.weights_read == pytest.approx(llama.anatomy.weights_per_token - saved)


@settings(max_examples=6, deadline=None)
@given(keep=st.floats(0.02, 0.98))
def test_ranked_over_all_layers_a_tokens_budget_is_the_same_and_layers_differ(llama, keep):
    policy = make_policy("corrected_gxo", {"keep": keep, "ranking": "global"})
    masks = policy.prepare(DensePass(llama.model, llama.anatomy, IDS)).neurons
    every = torch.cat(list(masks.values()), dim=-1)
    assert bool((every.sum(-1) == kept_count(keep, every.shape[-1])).all())


def test_one_share_per_layer_is_kept_in_each(llama):
    masks = make_policy("snip", {"keep": [0.1, 0.5, 1.0]}).prepare(DensePass(llama.model, llama.anatomy, IDS))
    assert [int(mask[0, 0].sum()) for mask in masks.neurons.values()] == [8, 40, 80]
    with pytest.raises(UserError, match="2 values per layer, but the model has 3 layers"):
        llama.hidden_states(make_policy("snip", {"keep": [0.1, 0.5]}), IDS)


@pytest.mark.parametrize(
    ("name", "given", "sentence"),
    [
        ("dense_magnitude_norm", {"units": "both"}, "units must be mlp"),
        ("gxo", {"keep": [0.5, 0.5], "ranking": "global"}, "one share"),
        ("gradient", {"ranking": "global"}, "no setting 'ranking'"),
        ("gxo", {"label": "best"}, "label"),
    ],
)
def test_wrong_settings_get_one_sentence(name, given, sentence):
    with pytest.raises(UserError, match=sentence):
        make_policy(name, given)


def test_labels_are_what_they_say(llama):
    from backend.sparsity.dense_pass import _labeller

    logits = llama.model(IDS, use_cache=False).logits[0].float()
    order = logits.argsort(-1, descending=True)
    whole = slice(0, IDS.shape[1])

    def labels(kind, seed=0):
        return _labeller(kind, seed, IDS[0])(logits, whole)

    assert torch.equal(labels("own"), order[:, 0])
    assert torch.equal(labels("second"), order[:, 1])
    assert labels("next").tolist()[:-1] == IDS[0, 1:].tolist()
    assert torch.equal(labels("random"), labels("random"))
    assert not torch.equal(labels("random"), labels("random", 1))
    assert not bool((labels("random") == order[:, 0]).any())


@pytest.mark.parametrize("label", ["next", "second", "random"])
def test_another_label_gives_other_masks(llama, label):
    dense = DensePass(llama.model, llama.anatomy, IDS)
    own = make_policy("gxo", {"keep": 0.3}).prepare(dense).neurons[0]
    other = make_policy("gxo", {"keep": 0.3, "label": label}).prepare(dense).neurons[0]
    assert not torch.equal(own, other)


def test_the_prompts_mask_holds_for_the_whole_decode_and_sees_nothing_after_it(llama):
    policy = make_policy("prompt_attribution", {"keep": 0.3})
    dense = DensePass(llama.model, llama.anatomy, IDS, prompt=5)
    mask = policy.prepare(dense).neurons[1]
    assert mask.shape[1] == 1, "one row holds for all"
    (context,) = (c for c in llama.contexts(policy, prepared=policy.prepare(dense)).values() if c.layer == 1)
    x = torch.zeros(1, 3, 1)
    for _ in range(2):
        assert torch.equal(policy.mlp_mid(Activations(x=x), context), mask.expand(-1, 3, -1))
    assert torch.equal(policy.fixed_neurons(context), mask[0, 0])
    scores = make_policy("snip", {"label": "next"}).scores(DensePass(llama.model, llama.anatomy, IDS[:, :5]))
    summed = scores.neurons[1][0, :4].sum(0)
    assert set(summed.topk(24).indices.tolist()) == set(mask[0, 0].nonzero()[:, 0].tolist())
    other = torch.cat([IDS[:, :5], IDS[:, 5:].flip(1)], dim=1)
    again = policy.prepare(DensePass(llama.model, llama.anatomy, other, prompt=5)).neurons[1]
    assert torch.equal(mask, again)


def test_a_renewed_mask_is_made_of_the_known_tokens_before_its_chunk(llama):
    policy = make_policy("refreshed_attribution", {"keep": 0.3, "every": 2})
    mask = policy.prepare(DensePass(llama.model, llama.anatomy, IDS, prompt=4)).neurons[0]
    scores = make_policy("snip", {"label": "next"}).scores(DensePass(llama.model, llama.anatomy, IDS))
    for chunk, start in enumerate((4, 6, 8)):
        known = scores.neurons[0][0, start - 2 : start].sum(0)
        for token in range(2 * chunk, min(2 * chunk + 2, 5)):
            kept = set(mask[0, token].nonzero()[:, 0].tolist())
            assert kept == set(known.topk(24).indices.tolist())
    # the tokens of a chunk, and all after it, change nothing of its mask but their own successor's label
    other = torch.cat([IDS[:, :7], IDS[:, 7:].flip(1)], dim=1)
    again = policy.prepare(DensePass(llama.model, llama.anatomy, other, prompt=4)).neurons[0]
    assert torch.equal(mask[:, :4], again[:, :4])


def test_what_a_renewal_reads_is_counted(llama):
    policy = make_policy("refreshed_attribution", {"keep": 1.0, "every": 8})
    _, reading = llama.hidden_states(policy, IDS, prompt=4)
    assert reading.mlp_density == 1
    assert reading.model_density == pytest.approx(1 + 2 / 8)


def test_only_realisable_label_free_methods_are_measured_and_the_others_are_oracles():
    for name, method in METHODS.items():
        if not issubclass(method, Attribution):
            continue
        assert method().how == ("measured" if name in REALISABLE else "oracle")
        assert method.label_free == (name not in BY_LABEL)


def test_token_by_token_the_masks_of_the_dense_run_are_used_at_the_same_index(llama):
    policy = make_policy("gxo", {"keep": 0.4, "units": "both"})
    dense = DensePass(llama.model, llama.anatomy, IDS, prompt=3)
    expected, at_once = llama.hidden_states(policy, IDS, prompt=3)
    _, cache = dense.prefix()
    prepared = policy.prepare(dense)
    with torch.inference_mode(), llama.applied(policy, prepared=prepared) as stepwise:
        steps = [
            llama.anatomy.decoder(input_ids=t.view(1, 1), past_key_values=cache).last_hidden_state
            for t in IDS[0, 3:]
        ]
    torch.testing.assert_close(torch.cat(steps, dim=1), expected[:, 3:], rtol=1e-4, atol=1e-5)
    assert stepwise.weights_read == pytest.approx(at_once.weights_read)
    assert at_once.tokens == 6
