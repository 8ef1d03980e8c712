"""Each policy against a slow reference, and the identities that tie them together."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.errors import UserError
from backend.methods import every_method, make_method
from backend.residency import simulate
from backend.residency.trace import ExpertTrace
from backend.routing import NONE, ROUTINGS, RoutingContext, make_routing
from backend.routing.cache_conditional import CachePrior, CumulativeThreshold, MaxRank
from backend.routing.fewer_experts import thresholds_for
from backend.routing.routes import Routes, router_entropy
from backend.sparsity import METHODS
from tests.routing.reference import SlowCache, in_rank_order, lifted, make_routes, promoted

N, K, T = 12, 4, 60


def random_routes(seed: int, tokens: int = T, experts: int = N, k: int = K, coarse: bool = False) -> Routes:
    """Scores that drift, as a text's do; coarse ones tie often."""
    rng = np.random.default_rng(seed)
    z = np.cumsum(rng.normal(size=(tokens, experts)) * 0.5, axis=0) + rng.normal(size=(tokens, experts))
    return make_routes(np.round(z) if coarse else z, k)


def run(policy, routes, cut=(), experts=N):
    """The policy's choices over one sequence, in pieces if asked; and its state."""
    context = RoutingContext(0, routes.experts, routes.k, 0)
    context.state = policy.start(context)
    bounds = [0, *cut, routes.tokens]
    parts = []
    for first, end in itertools.pairwise(bounds):
        parts.append(policy.choose(routes.slice(first, end), context))
        context.tokens += end - first
    return np.concatenate(parts), context.state


def misses_of(policy, routes):
    return int(np.concatenate(run(policy, routes)[1].misses).sum())


cases = st.tuples(
    st.integers(0, 10_000), st.booleans(), st.integers(1, 5), st.sampled_from(["lru", "lfu", "random"])
)


@given(case=cases, j=st.integers(0, 3), m=st.integers(0, N), extra=st.integers(0, N))
@settings(max_examples=60, deadline=None)
def test_max_rank_equals_the_reference(case, j, m, extra):
    seed, coarse, k, rule = case
    rule = "lru" if rule == "random" else rule
    routes = random_routes(seed, k=k, coarse=coarse)
    capacity = min(N, k + extra)
    chosen, state = run(MaxRank(m=m, top_j=j, slots=capacity, eviction=rule), routes)
    cache = SlowCache(N, capacity, rule)
    for t in range(T):
        order = routes.order[t].tolist()
        expected = in_rank_order(promoted(order, cache.inside, m, j, k), order)
        assert chosen[t].tolist() == expected
        assert state.misses[0][t] == cache.serve(expected)


@given(case=cases, j=st.integers(0, 3), share=st.floats(0, 1), extra=st.integers(0, N),
       spread=st.sampled_from(["mean", "ema", "own"]))  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_cache_prior_equals_the_reference(case, j, share, extra, spread):
    seed, coarse, k, rule = case
    rule = "lru" if rule == "random" else rule
    routes = random_routes(seed, k=k, coarse=coarse)
    capacity = min(N, k + extra)
    policy = CachePrior(lambda_=share, top_j=j, slots=capacity, eviction=rule, spread=spread)
    chosen, state = run(policy, routes)
    cache, ranges, average = SlowCache(N, capacity, rule), [], None
    for t in range(T):
        z, order = routes.scores[t], routes.order[t].tolist()
        own = float(z.max()) - float(z.min())
        ranges.append(own)
        average = own if average is None else 0.99 * average + 0.01 * own
        delta = {"mean": sum(ranges) / len(ranges), "ema": average, "own": own}[spread]
        expected = in_rank_order(lifted(order, z, cache.inside, share * delta, j, k), order)
        assert chosen[t].tolist() == expected
        assert state.misses[0][t] == cache.serve(expected)


@given(case=cases, p=st.floats(0, 1), j=st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_cumulative_threshold_is_max_rank_with_each_tokens_own_m(case, p, j):
    seed, coarse, k, _ = case
    routes = random_routes(seed, k=k, coarse=coarse)
    chosen, _ = run(CumulativeThreshold(p=p, top_j=j, slots=max(k, 6)), routes)
    cache = SlowCache(N, max(k, 6), "lru")
    for t in range(T):
        order = routes.order[t].tolist()
        held, m = 0.0, 0
        while held < p and m < N:
            held += float(routes.probabilities[t, order[m]])
            m += 1
        m = N if p >= 1 else m
        expected = in_rank_order(promoted(order, cache.inside, m, j, k), order)
        assert chosen[t].tolist() == expected
        cache.serve(expected)


ALIKE = {
    "lambda 0": lambda r: CachePrior(lambda_=0, slots=6),
    "M up to K": lambda r: MaxRank(m=r.k, slots=6),
    "M 0": lambda r: MaxRank(m=0, slots=6),
    "p 0": lambda r: CumulativeThreshold(p=0, slots=6),
    "all cached": lambda r: CachePrior(lambda_=1, slots=N),
    "J as many as K": lambda r: MaxRank(m=N, slots=6, top_j=r.k),
}


@pytest.mark.parametrize("how", ALIKE)
@given(case=cases)
@settings(max_examples=25, deadline=None)
def test_these_are_the_original_routing(how, case):
    seed, coarse, k, _ = case
    routes = random_routes(seed, k=k, coarse=coarse)
    if how == "all cached":  # once each expert has been used; until then, nothing near can be preferred
        routes = random_routes(seed, tokens=400, k=k, coarse=coarse)
    chosen, _state = run(ALIKE[how](routes), routes)
    full = 0
    if how == "all cached":
        seen = [set(chosen[: t + 1].ravel()) for t in range(len(chosen))]
        full = next((t + 1 for t, each in enumerate(seen) if len(each) == N), len(chosen))
    assert (chosen[full:] == routes.original[full:]).all()


def test_all_cached_from_the_start_is_the_original():
    routes = random_routes(5)
    policy = MaxRank(m=N, slots=N)
    context = RoutingContext(0, N, K, 0)
    context.state = policy.start(context)
    context.state.cache.resident[:] = 1
    assert (policy.choose(routes, context) == routes.original).all()


@given(case=cases)
@settings(max_examples=25, deadline=None)
def test_the_first_token_meets_an_empty_cache_and_is_the_original(case):
    seed, coarse, k, rule = case
    routes = random_routes(seed, k=k, coarse=coarse).slice(0, 1)
    for policy in (
        CachePrior(lambda_=1, slots=6, eviction=rule),
        MaxRank(m=N, slots=6, eviction=rule, top_j=0),
        CumulativeThreshold(p=1, slots=6),
    ):
        assert (run(policy, routes)[0] == routes.original).all()


@given(case=cases, j=st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_unbounded_preferences_agree(case, j):
    """Max-Rank(N) ≡ cumulative(1) ≡ Cache-Prior with a λΔ above every difference of scores."""
    seed, coarse, k, rule = case
    routes = random_routes(seed, k=k, coarse=coarse)
    options = {"slots": 6, "eviction": rule, "top_j": j}
    expected, _ = run(MaxRank(m=N, **options), routes)
    assert (run(CumulativeThreshold(p=1, **options), routes)[0] == expected).all()
    endless = CachePrior.model_construct(**{**CachePrior(lambda_=1, **options).model_dump(), "lambda_": 1e30})
    assert (run(endless, routes)[0] == expected).all()


@given(case=cases, j=st.integers(0, 4))
@settings(max_examples=40, deadline=None)
def test_what_holds_for_every_choice(case, j):
    """K experts without duplicates in rank order, the first J among them; C of them fit at any time."""
    seed, coarse, k, rule = case
    routes = random_routes(seed, k=k, coarse=coarse)
    options = {"slots": max(k, 5), "eviction": rule, "top_j": j}
    for policy in (
        MaxRank(m=9, **options),
        CumulativeThreshold(p=0.8, **options),
        CachePrior(lambda_=0.7, **options),
    ):
        chosen, state = run(policy, routes)
        place = np.argsort(routes.order, axis=1)
        ranks = np.take_along_axis(place, chosen.astype(np.int64), axis=1)
        assert chosen.shape == (T, k)
        assert (np.diff(ranks, axis=1) > 0).all()
        assert (ranks[:, : min(j, k)] == np.arange(min(j, k))).all()
        assert state.cache.resident.sum() <= max(k, 5)
        assert state.cache.resident[chosen[-1]].all()


@given(case=cases, constant=st.integers(-50, 50))
@settings(max_examples=40, deadline=None)
def test_a_constant_added_to_the_scores_changes_nothing(case, constant):
    seed, _, k, rule = case
    z = np.round(random_routes(seed, k=k).scores * 8) / 8  # exact in fp32 with the constant added
    plain, moved = make_routes(z, k), make_routes(z + constant, k)
    for policy in (
        MaxRank(m=8, slots=6, eviction=rule),
        CumulativeThreshold(p=0.75, slots=6),
        CachePrior(lambda_=0.25, slots=6, eviction=rule),
        CachePrior(lambda_=0.5, slots=6, spread="own"),
    ):
        assert (run(policy, plain)[0] == run(policy, moved)[0]).all()


@given(case=cases, cuts=st.sets(st.integers(1, T - 1), max_size=5))
@settings(max_examples=30, deadline=None)
def test_pieces_of_a_sequence_continue_it(case, cuts):
    seed, coarse, k, rule = case
    routes = random_routes(seed, k=k, coarse=coarse)
    for policy in (
        CachePrior(lambda_=0.3, slots=6, eviction=rule),
        CachePrior(lambda_=0.3, slots=6, spread="ema"),
        MaxRank(m=8, slots=6, eviction=rule),
        make_routing("random_swap", {"rank": 1}),
        make_routing("top_p", {"p": 0.6}),
    ):
        assert (run(policy, routes)[0] == run(policy, routes, cut=sorted(cuts))[0]).all()


@pytest.mark.parametrize("rule", ["lru", "lfu", "random"])
def test_the_caches_misses_are_those_of_its_trace(rule):
    """What the walk counts is what a cache of that size misses on the experts it chose."""
    routes = random_routes(11)
    policy = CachePrior(lambda_=0.3, slots=6, eviction=rule)
    context = RoutingContext(0, N, K, 0)
    context.state = policy.start(context)
    chosen = policy.choose(routes, context)
    seed = context.state.cache._seed
    walk = simulate(ExpertTrace.from_lists(chosen.tolist(), N), 6, rule, seed=seed)
    assert (np.concatenate(context.state.misses) == walk.misses).all()


def test_a_stronger_preference_misses_less_on_drifting_scores():
    routes = random_routes(2, tokens=400)
    found = [misses_of(CachePrior(lambda_=share, slots=6), routes) for share in (0, 0.1, 0.3, 1)]
    assert found == sorted(found, reverse=True)
    assert found[-1] < 0.6 * found[0]


def test_experts_that_are_not_allowed_are_never_promoted():
    z = random_routes(3).scores.copy()
    z[:, 6:] = -np.inf
    routes = make_routes(z, K)
    for policy in (MaxRank(m=N, slots=8), CachePrior(lambda_=1, slots=8), CumulativeThreshold(p=1, slots=8)):
        context = RoutingContext(0, N, K, 0)
        context.state = policy.start(context)
        context.state.cache.resident[6:] = 1
        assert policy.choose(routes, context).max() < 6


def test_pruning_top_p_and_adaptive_k_keep_the_first_ranks():
    routes = random_routes(7)
    w = routes.ranked_probabilities
    entropy = [-sum(p * math.log(p) for p in row if p > 0) for row in routes.probabilities.astype(float)]
    np.testing.assert_allclose(router_entropy(routes.probabilities), entropy, rtol=1e-9)
    low, high = np.quantile(entropy, [0.3, 0.6])
    expected = {
        ("expert_pruning", "experts", 3): [3] * T,
        ("top_p", "p", 0.7): [
            next((m for m in range(1, K) if w[t, :m].astype(float).sum() >= 0.7), K) for t in range(T)
        ],
        ("top_p", "p", 1.0): [K] * T,
        ("top_p", "p", 0.0): [1] * T,
        ("adaptive_k", "thresholds", (low, high)): [1 if h < low else 2 if h < high else K for h in entropy],
    }
    for (name, key, value), counts in expected.items():
        given = {"low": value[0], "high": value[1]} if key == "thresholds" else {key: value}
        chosen, _ = run(make_routing(name, given), routes)
        for t in range(T):
            kept = routes.original[t, : counts[t]].tolist()
            assert chosen[t].tolist() == kept + [NONE] * (K - counts[t]), name


@pytest.mark.parametrize("mean", [2.0, 2.75, 3.5, 4.0])
def test_adaptive_k_is_calibrated_to_a_mean(mean):
    entropies = router_entropy(random_routes(8, tokens=2_000).probabilities)
    low, high = thresholds_for(mean, entropies, K)
    counts = np.where(entropies < low, 1, np.where(entropies < high, K // 2, K))
    assert counts.mean() == pytest.approx(mean, abs=0.01)


def test_adaptive_k_with_a_mean_is_another_cell_and_without_one_the_same_as_before():
    plain = make_routing("adaptive_k", {"low": 1, "high": 2})
    assert plain.canonical() == {"prompt": "rerouted", "low": 1.0, "high": 2.0}
    assert plain.fitted_on is None
    fitted = make_routing("adaptive_k", {"mean": 3})
    assert fitted.fitted_on == fitted.canonical()["calibration"] == "wikitext2_train"
    assert not {"low", "high"} & set(fitted.canonical())
    assert make_routing("adaptive_k", fitted.canonical()) == fitted


def test_random_swap_replaces_one_rank_by_an_outsider():
    routes = random_routes(9, tokens=4_000)
    chosen, _ = run(make_routing("random_swap", {"rank": 2}), routes)
    place = np.argsort(routes.order, axis=1)
    ranks = np.take_along_axis(place, chosen.astype(np.int64), axis=1)
    assert (ranks[:, :3] == [0, 2, 3]).all()
    drawn = np.bincount(ranks[:, 3], minlength=N)
    assert (drawn[:K] == 0).all()
    np.testing.assert_allclose(drawn[K:] / 4_000, 1 / (N - K), atol=0.03)
    other = run(make_routing("random_swap", {"rank": 2, "seed": 1}), routes)[0]
    assert (other != chosen).any()


def test_adapmoe_drops_below_the_layers_own_threshold():
    routes = random_routes(10)
    policy = make_routing("adapmoe", {"theta": 0.01})
    for sensitivity in (0.25, 1.0, 4.0):
        fitted = {"0.sensitivity": torch.tensor(sensitivity), "1.sensitivity": torch.tensor(9.0)}
        context = RoutingContext(0, N, K, 0, calibration=fitted)
        chosen = policy.choose(routes, context)
        for t in range(T):
            kept = [
                expert
                for place, expert in enumerate(routes.original[t].tolist())
                if place == 0 or routes.probabilities[t, expert] >= math.sqrt(0.01 / sensitivity)
            ]
            assert [e for e in chosen[t].tolist() if e != NONE] == kept
    with pytest.raises(UserError, match="has to be fitted on a calibration text"):
        policy.choose(routes, RoutingContext(0, N, K, 0))


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("cache_prior", {"slots": 3}, r"cache of 3 .* cannot serve a token that uses 4; give it at least 4"),
        ("max_rank", {"cache_share": 0.2}, r"cache of 2 of the layer's 12"),
        ("expert_pruning", {"experts": 5}, "experts = 5 is more than the 4"),
        ("random_swap", {"rank": 9}, "rank = 9 is more than the 4"),
        ("adaptive_k", {"mean": 5}, r"mean = 5 cannot be had: .* between 1.5 and 4\."),
        ("adaptive_k", {"mean": 1.2}, r"mean = 1.2 cannot be had"),
    ],
)
def test_settings_that_do_not_fit_the_model_are_refused(name, given, message):
    with pytest.raises(UserError, match=message):
        make_routing(name, given).fit(N, K)


def test_a_j_that_disables_the_method_is_said():
    (note,) = make_routing("cache_prior", {"top_j": 4}).fit(N, K)
    assert "never changes anything" in note
    assert "lower top_j" in note
    assert make_routing("cache_prior", {"top_j": 3}).fit(N, K) == []
    assert [make_routing("max_rank", {}).kept_ranks(k) for k in (1, 2, 4, 8)] == [0, 1, 2, 2]


def test_both_kinds_of_methods_are_one_namespace_with_registries_apart():
    assert set(every_method()) == set(METHODS) | set(ROUTINGS)
    assert not set(METHODS) & set(ROUTINGS)
    assert make_method("cache_prior", {"lambda_": 0.4}) == make_routing("cache_prior", {"lambda_": 0.4})
    assert {m.kind for m in METHODS.values()} == {"mask"}
    assert {m.kind for m in ROUTINGS.values()} == {"routing"}
    with pytest.raises(UserError, match="did you mean 'cache_prior'"):
        make_method("cache_priors", {})
