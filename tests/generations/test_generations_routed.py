"""Generations of a mixture of experts, on a tiny random one: texts, scores, experts, misses, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from backend.errors import UserError
from backend.experiments.laboratory import Laboratory
from backend.experiments.runs import RunFolder
from backend.generations import GenerationRequest
from backend.generations.routed import RoutedDecoding
from backend.generations.run import run_generation
from backend.home import Home
from backend.residency import simulate
from backend.results import Store
from backend.results.generations import Generation, generation
from backend.routing import make_routing
from backend.routing.reading import RoutingReading
from tests.models_tiny import tiny_tokenizer
from tests.moe_tiny import EXPERTS, LAYERS, TOP_K, tiny_moe

PRIOR = {"method": "cache_prior", "lambda_": 0.5, "slots": 5, "top_j": 1}
RANK = {"method": "max_rank", "m": 6, "slots": 5, "top_j": 0, "eviction": "lfu", "prompt": "original"}
FEWER = {"method": "top_p", "p": 0.5}
DIP = {"method": "dip", "density": 0.5}
SENSITIVE = {"method": "adapmoe", "theta": 0.05}


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Laboratory:
    return Laboratory(Home.resolve(tmp_path_factory.mktemp("home")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny random mixture of experts and its tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "tiny-moe"
    tiny_moe("qwen3_moe").save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def request(folder: Path, **changes: Any) -> GenerationRequest:
    said = {
        "model": str(folder), "prompts": ("ab c",), "style": "raw", "max_tokens": 16, "policies": (PRIOR,),
        **changes,
    }  # fmt: skip
    return GenerationRequest.parse(said, "test")


def shown_of(laboratory: Laboratory, asked: GenerationRequest) -> Generation:
    run = RunFolder.create(laboratory.home, asked, "generation")
    assert run_generation(run, laboratory) == "done"
    found = generation(Store.in_memory(laboratory.home), run.id)
    assert found is not None
    return found


def one_pass(
    laboratory: Laboratory, folder: Path, policy: dict[str, Any], ids: list[int], prompt: int
) -> tuple[torch.Tensor, RoutingReading]:
    """One pass over prompt and text: log-probabilities of the text # [T, V], and the experts."""
    engine = laboratory.subject(str(folder), "float32").routing
    settings = dict(policy)
    made = make_routing(settings.pop("method"), settings)
    hidden, reading = engine.hidden_states(made, torch.tensor([ids]), prompt=prompt)
    return engine.head.logits(hidden[0, prompt - 1 : -1]).double().log_softmax(-1), reading


def prompt_of(laboratory: Laboratory, folder: Path) -> list[int]:
    tokenizer = laboratory.subject(str(folder), "float32").loaded.tokenizer
    return list(tokenizer("ab c")["input_ids"])


def test_the_original_routings_text_is_that_of_greedy_generate(laboratory: Laboratory, folder: Path) -> None:
    shown = shown_of(laboratory, request(folder))
    assert [side.policy for side in shown.sides] == ["original", "cache_prior"]
    ids = torch.tensor([prompt_of(laboratory, folder)])
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    expected = model.generate(ids, do_sample=False, max_new_tokens=16)[0, ids.shape[1] :].tolist()
    assert [token["token_id"] for token in shown.sides[0].tokens["free"]] == expected


@pytest.mark.parametrize("order", ["together", "in turn"])
def test_every_number_is_that_of_one_pass_over_the_text(
    laboratory: Laboratory, folder: Path, order: str
) -> None:
    asked = request(folder, policies=(PRIOR, RANK, FEWER), order=order, temperature=0.8)
    shown = shown_of(laboratory, asked)
    prompt = prompt_of(laboratory, folder)
    own = [{"method": "original"}, PRIOR, RANK, FEWER]
    for side, policy in zip(shown.sides, own, strict=True):
        for tokens in side.tokens.values():
            assert len(tokens) > 3
            ids = prompt + [token["token_id"] for token in tokens]
            log_s, reading = one_pass(laboratory, folder, policy, ids, len(prompt))
            log_o, _ = one_pass(laboratory, folder, {"method": "original"}, ids, len(prompt))
            kl = (log_o.exp() * (log_o - log_s)).sum(-1)
            capacity = policy.get("slots", EXPERTS // 2)
            walks = [
                simulate(layer.trace(), capacity, policy.get("eviction", "lru"))
                for layer in reading.layers.values()
            ]
            for place, token in enumerate(tokens):
                at = token["token_id"]
                assert token["logprob"] == pytest.approx(float(log_s[place, at]), abs=2e-4)
                assert token["dense_logprob"] == pytest.approx(float(log_o[place, at]), abs=2e-4)
                assert token["kl"] == pytest.approx(float(kl[place]), abs=5e-4)
                if place == 0:
                    assert token["own"] == {}  # the prompt gave it
                    continue
                read = len(prompt) + place - 1
                missed = [int(walk.misses[read]) for walk in walks]
                assert token["layers"]["expert_misses"] == missed
                assert token["own"]["expert_misses"] == sum(missed)
                layers = reading.layers.values()
                used = [int(layer.counts[read]) for layer in layers]
                assert token["layers"]["experts_per_token"] == used
                named = token["layers"]["experts_per_token.entries"]
                assert named == [[int(e) for e in layer.chosen[read] if e >= 0] for layer in layers]
                gone = token["layers"]["expert_misses.entries"]
                assert [len(each) for each in gone] == missed
                assert all(set(few) <= set(all_) for few, all_ in zip(gone, named, strict=True))
                changed = sum(int(layer.outside[read]) for layer in layers)
                assert token["own"]["routing_change"] == pytest.approx(changed / sum(used), abs=1e-5)


def test_what_is_counted_at_the_end_is_of_the_tokens_shown(laboratory: Laboratory, folder: Path) -> None:
    shown = shown_of(laboratory, request(folder, policies=(PRIOR, FEWER)))
    for side in shown.sides[1:]:
        for form, end in side.ends.items():
            rest = side.tokens[form][1:]
            missed = sum(token["own"]["expert_misses"] for token in rest)
            used = sum(sum(token["layers"]["experts_per_token"]) for token in rest)
            assert end.counted["miss_rate"][0] == pytest.approx(missed / used)
            assert end.counted["misses_per_token"][0] == pytest.approx(missed / len(rest))
            assert end.mlp_density is None
    original, prior, fewer = shown.sides
    assert prior.execution == "routed"
    assert prior.ends["free"].tokens_per_s
    labels = [
        next(column.label for column in side.columns if column.name == "expert_misses")
        for side in shown.sides
    ]
    half = f"Experts missed (simulated, 4 of {EXPERTS} experts cached, LRU)"
    assert labels == [half, half.replace("4 of", "5 of"), half]
    assert {column.unit for column in prior.columns} >= {f"of {LAYERS * TOP_K}"}
    assert fewer.mean("experts_per_token", "free") < TOP_K == original.mean("experts_per_token", "free")


def test_the_caches_prefer_what_they_hold(laboratory: Laboratory, folder: Path) -> None:
    eager = {**PRIOR, "lambda_": 1.0, "top_j": 0}
    shown = shown_of(laboratory, request(folder, policies=(eager, {**eager, "lambda_": 0.0})))
    near, same = shown.sides[1:]
    assert near.ends["forced"].counted["miss_rate"][0] < same.ends["forced"].counted["miss_rate"][0]
    assert near.mean("routing_change", "forced") > 0 == same.mean("routing_change", "forced")
    assert shown.divergence(same) is None
    assert same.mean("kl", "free") == pytest.approx(0, abs=1e-6)


def test_a_policy_that_is_calibrated_is(laboratory: Laboratory, folder: Path) -> None:
    shown = shown_of(laboratory, request(folder, policies=(SENSITIVE,)))
    assert shown.sides[1].mean("experts_per_token", "forced") < TOP_K


def test_sequences_take_turns_without_disturbing_each_other(laboratory: Laboratory, folder: Path) -> None:
    engine = laboratory.subject(str(folder), "float32").routing
    policy = make_routing("cache_prior", {"slots": 5, "lambda_": 0.7})
    ids = torch.tensor([3, 4, 5, 6, 7, 8])
    alone = RoutedDecoding(engine, policy)
    expected = [alone.read_prompt(ids[:2]), *(alone.feed(int(token)) for token in ids[2:])]
    turns = [RoutedDecoding(engine, policy), RoutedDecoding(engine, make_routing("random_swap", {}))]
    found = [[each.read_prompt(ids[:2])] for each in turns]
    for token in ids[2:]:
        for each, rows in zip(turns, found, strict=True):
            rows.append(each.feed(int(token)))
    assert torch.equal(torch.stack(found[0]), torch.stack(expected))
    assert not torch.allclose(torch.stack(found[1]), torch.stack(expected))
    assert not any(layer.router._forward_hooks for layer in engine.anatomy.layers.values())


@pytest.mark.parametrize(
    ("model", "policies", "sentence"),
    [
        ("smollm2-moe", (DIP,), "DIP is a mask policy, but smollm2-moe is a mixture"),
        ("smollm2-135m", (PRIOR,), "Cache-Prior is a routing policy, but smollm2-135m is no mixture"),
        ("some/model", (PRIOR, DIP), "no model takes both"),
    ],
)
def test_a_policy_of_the_other_kind_is_refused_before_loading(
    model: str, policies: tuple[dict[str, Any], ...], sentence: str
) -> None:
    asked = GenerationRequest.parse({"model": model, "prompts": ("a",), "policies": policies}, "test")
    with pytest.raises(UserError, match=sentence):
        asked.plans()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"policies": (DIP,)}, "DIP is a mask policy, but .* is a mixture of experts; choose"),
        ({"policies": ({**PRIOR, "slots": 2},)}, "cannot serve a token that uses 4"),
        ({"prefill": "sparse"}, "prefill belongs to mask policies"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    laboratory: Laboratory, folder: Path, changes: dict[str, Any], sentence: str
) -> None:
    run = RunFolder.create(laboratory.home, request(folder, **changes), "generation")
    with pytest.raises(UserError, match=sentence):
        run_generation(run, laboratory)
    assert generation(Store.in_memory(laboratory.home), run.id) is None


def test_a_mixture_without_a_policy_writes_its_own_text(laboratory: Laboratory, folder: Path) -> None:
    shown = shown_of(laboratory, request(folder, policies=()))
    assert [side.policy for side in shown.sides] == ["original"]


def test_a_dense_folder_refuses_a_routing_policy(laboratory: Laboratory, tiny_folder: Path) -> None:
    run = RunFolder.create(laboratory.home, request(tiny_folder), "generation")
    with pytest.raises(UserError, match="is no mixture of experts; choose mask policies"):
        run_generation(run, laboratory)
