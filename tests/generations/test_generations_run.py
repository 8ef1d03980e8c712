"""A generation from request to store, on a tiny model: texts, scores, columns, stops, refusals."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from backend.decoding.decoder import Decoding
from backend.errors import UserError
from backend.experiments.events import EventLog
from backend.experiments.laboratory import Laboratory
from backend.experiments.runs import Cancelled, RunFolder
from backend.generations import GenerationRequest
from backend.generations.run import run_generation
from backend.generations.scoring import Score
from backend.generations.written import Stream, Written
from backend.home import Home
from backend.results import Store, export_run, import_bundle
from backend.results.generations import Generation, generation, hurt, prompts_in
from backend.sparsity import make_policy
from backend.sparsity.engine import MaskedEngine
from tests.models_tiny import tiny_model

DIP = {"method": "dip", "density": 0.4}
CACHED = {"method": "dip_ca", "density": 0.4}
ORACLE = {"method": "gxo", "keep": 0.5}
MASKED = {"method": "glu_oracle", "keep": 0.3}


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Laboratory:
    return Laboratory(Home.resolve(tmp_path_factory.mktemp("home")))


def request(folder: Path, **changes: Any) -> GenerationRequest:
    said = {
        "model": str(folder), "prompts": ("ab c",), "style": "raw", "max_tokens": 12, "temperature": 0.8,
        "policies": (DIP,), **changes,
    }  # fmt: skip
    return GenerationRequest.parse(said, "test")


def written(laboratory: Laboratory, asked: GenerationRequest) -> tuple[RunFolder, Store]:
    folder = RunFolder.create(laboratory.home, asked, "generation")
    assert run_generation(folder, laboratory) == "done"
    return folder, Store.in_memory(laboratory.home)


def shown_of(laboratory: Laboratory, asked: GenerationRequest, item: int = 0) -> Generation:
    folder, store = written(laboratory, asked)
    found = generation(store, folder.id, item)
    assert found is not None
    return found


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.resolve(tmp_path / "home")


def write_cut_sides(
    home: Home, dense: tuple[int, str | None], sides: list[tuple[int, str | None]], run: str = "cut"
) -> None:
    """Write a run whose sides have the same tokens, KL = place, as many as said, and these ends."""
    folder = home.runs / run
    folder.mkdir(parents=True)
    at = "2026-01-02T00:00:00+00:00"
    head = {"run": run, "name": "generation", "kind": "generation", "created_at": at, "spec": {}}
    (folder / "run.json").write_text(json.dumps(head))
    log = EventLog(folder)
    log.append(
        "generation_started", item=0, model="m", model_sha256="m", prompt="a", read_as="a", prompt_tokens=1,
        sides=[
            {"side": number, "policy": "dip", "policy_version": 1, "settings": {}, "how": "measured",
             "execution": "gathered", "no_text": ""}
            for number in range(1 + len(sides))
        ],
    )  # fmt: skip
    for number, (count, ended) in enumerate([dense, *sides]):
        stream = Stream(log, 0, number, "free")
        for place in range(count):
            stream.token(Written(place, f" {place}", -1.0, []))
        stream.scores([Score(-1.0, float(place), 1, []) for place in range(count)])
        if ended is not None:
            stream.end(
                ended=ended, seconds=1.0, tokens_per_s=None, first_token_s=None, mlp_density=None,
                model_density=None, counted={}, loop=None,
            )  # fmt: skip


def logits_of(
    laboratory: Laboratory, asked: GenerationRequest, policy: dict[str, Any], ids: list[int], prompt: int
) -> torch.Tensor:
    """The slow way: one masked pass over prompt and text, the prompt dense. # [T, V]"""
    engine: MaskedEngine = laboratory.subject(asked.model, asked.dtype).engine
    settings = dict(policy)
    made = make_policy(settings.pop("method"), settings)
    hidden, _ = engine.hidden_states(made, torch.tensor([ids]), prompt=prompt)
    with torch.inference_mode():
        return engine.anatomy.head.logits(hidden[0, prompt - 1 : -1]).double().log_softmax(-1)


def test_a_list_goes_on_with_its_own_model_after_another_one_passed(
    laboratory: Laboratory, tiny_folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    tiny_model("llama", other, seed=5)
    listed = request(tiny_folder, prompts=("ab", "ab c"), max_tokens=4)
    urgent = request(other, prompts=("ab c",), max_tokens=4)
    alone = shown_of(laboratory, listed, 1), shown_of(laboratory, urgent)
    assert alone[0].model_sha256 != alone[1].model_sha256
    folders = [RunFolder.create(laboratory.home, asked, "prompts") for asked in (listed, urgent)]
    calls: list[int] = []

    def another_passes() -> None:
        calls.append(1)
        if len(calls) == 2:
            run_generation(folders[1], laboratory)

    assert run_generation(folders[0], laboratory, checkpoint=another_passes) == "done"
    store = Store.in_memory(laboratory.home)
    found = generation(store, folders[0].id, 1), generation(store, folders[1].id)
    for now, before in zip(found, alone, strict=True):
        assert now is not None
        assert now.model_sha256 == before.model_sha256
        for mine, its in zip(now.sides, before.sides, strict=True):
            assert [token["logprob"] for token in mine.tokens["free"]] == pytest.approx(
                [token["logprob"] for token in its.tokens["free"]], abs=1e-5
            )


@pytest.mark.parametrize("order", ["together", "in turn"])
@pytest.mark.parametrize("policy", [DIP, CACHED, MASKED], ids=lambda policy: str(policy["method"]))
def test_every_stored_number_is_that_of_a_slow_pass_over_the_text(
    laboratory: Laboratory, tiny_folder: Path, policy: dict[str, Any], order: str
) -> None:
    asked = request(tiny_folder, policies=(policy,), order=order)
    shown = shown_of(laboratory, asked)
    prompt = laboratory.subject(asked.model, asked.dtype).loaded.tokenizer("ab c")["input_ids"]
    dense, side = shown.sides
    assert len(dense.tokens["free"]) in range(2, 13)
    texts = [(side.tokens["free"], policy), (dense.tokens["free"], {"method": "dense"})]
    texts.append((side.tokens["forced"], policy))
    for tokens, own in texts:
        ids = prompt + [token["token_id"] for token in tokens]
        log_s = logits_of(laboratory, asked, own, ids, len(prompt))
        log_d = logits_of(laboratory, asked, {"method": "dense"}, ids, len(prompt))
        for place, token in enumerate(tokens):
            assert token["place"] == place
            assert token["logprob"] == pytest.approx(float(log_s[place, token["token_id"]]), abs=2e-4)
            at = float(log_d[place, token["token_id"]])
            assert token["dense_logprob"] == pytest.approx(at, abs=2e-4)
            kl = float((log_d[place].exp() * (log_d[place] - log_s[place])).sum())
            assert token["kl"] == pytest.approx(kl, abs=5e-4)
            assert token["dense_rank"] == 1 + int((log_d[place] > at + 1e-6).sum())
    forced = [token["token_id"] for token in side.tokens["forced"]]
    assert forced == [token["token_id"] for token in dense.tokens["free"]]


def test_densities_are_each_tokens_and_each_layers(laboratory: Laboratory, tiny_folder: Path) -> None:
    shown = shown_of(laboratory, request(tiny_folder, policies=(DIP, CACHED, MASKED)))
    for side in shown.sides[1:]:
        for form in ("free", "forced"):
            first, *rest = side.tokens[form]
            assert first["own"] == {}  # the prompt gave it
            values = [token["own"]["mlp_density"] for token in rest]
            assert side.ends[form].mlp_density == pytest.approx(sum(values) / len(values), rel=1e-3)
            for token in rest:
                layers = token["layers"]["mlp_density"]
                assert len(layers) == 3
                assert sum(layers) / 3 == pytest.approx(token["own"]["mlp_density"], rel=1e-3)
    assert shown.sides[1].ends["free"].mlp_density == pytest.approx(0.4, abs=0.02)


def test_a_policy_with_a_cache_brings_its_own_columns(laboratory: Laboratory, tiny_folder: Path) -> None:
    shown = shown_of(laboratory, request(tiny_folder, policies=(CACHED,), max_tokens=30))
    side = shown.sides[1]
    names = {column.name: column for column in side.columns}
    assert {"mlp_density", "hit_rate", "miss_bytes_per_token", "cache_filled"} <= set(names)
    assert names["miss_bytes_per_token"].unit == "B"
    for form in ("free", "forced"):
        rest = side.tokens[form][1:]
        assert rest[0]["own"]["hit_rate"] == 0  # the caches are empty at first
        missed = [token["own"]["miss_bytes_per_token"] for token in rest]
        counted = side.ends[form].counted
        assert counted["miss_bytes_per_token"][0] == pytest.approx(sum(missed) / len(missed), rel=1e-3)
        filled = [token["own"]["cache_filled"] for token in rest]
        assert filled == sorted(filled)


def test_an_oracle_is_scored_on_the_dense_text_alone(laboratory: Laboratory, tiny_folder: Path) -> None:
    shown = shown_of(laboratory, request(tiny_folder, policies=(ORACLE, DIP)))
    oracle, dip = shown.sides[1:]
    assert oracle.how == "oracle"
    assert "can only be scored" in oracle.no_text
    assert set(oracle.tokens) == {"forced"}
    assert set(dip.tokens) == {"free", "forced"}
    assert shown.divergence(oracle) is None


def test_a_sparse_prompt_is_read_by_each_policy_itself(laboratory: Laboratory, tiny_folder: Path) -> None:
    shown = shown_of(laboratory, request(tiny_folder, policies=({**DIP, "density": 0.2},), prefill="sparse"))
    side = shown.sides[1]
    for form in ("free", "forced"):
        assert side.tokens[form][0]["kl"] > 1e-4
    assert side.tokens["free"][0]["top"] != shown.sides[0].tokens["free"][0]["top"]


@pytest.mark.parametrize("form", ["free", "forced"])
def test_what_a_sparse_prompt_missed_is_no_tokens(
    laboratory: Laboratory, tiny_folder: Path, form: str
) -> None:
    asked = request(tiny_folder, prompts=("abcdefghijklmnop",), policies=(CACHED,), prefill="sparse")
    side = shown_of(laboratory, asked).sides[1]
    engine = laboratory.subject(asked.model, asked.dtype).engine
    whole = 4 * sum(mlp.weights for mlp in engine.anatomy.mlps.values())
    for token in side.tokens[form][1:]:
        own = token["own"]
        read = own["mlp_density"] * whole
        assert own["miss_bytes_per_token"] == pytest.approx((1 - own["hit_rate"]) * read, rel=1e-3)
    assert side.tokens[form][1]["own"]["hit_rate"] > 0  # the prompt filled the caches


@pytest.mark.parametrize("order", ["together", "in turn"])
def test_prompt_attribution_writes_a_text_of_its_own(
    laboratory: Laboratory, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    look = Decoding._look_at

    def slowly(self: Decoding, ids: torch.Tensor) -> None:
        if self.policy.prompt_alone:
            time.sleep(0.4)
        look(self, ids)

    monkeypatch.setattr(Decoding, "_look_at", slowly)
    policy = {"method": "prompt_attribution", "keep": 0.4}
    asked = request(tiny_folder, prompts=("abcdef",), policies=(policy,), order=order)
    shown = shown_of(laboratory, asked)
    dense, side = shown.sides
    assert side.no_text == ""
    assert side.execution == "gathered"
    ids = laboratory.subject(asked.model, asked.dtype).loaded.tokenizer("abcdef")["input_ids"]
    tokens = side.tokens["free"]
    log_s = logits_of(laboratory, asked, policy, ids + [token["token_id"] for token in tokens], len(ids))
    for place, token in enumerate(tokens):
        assert token["logprob"] == pytest.approx(float(log_s[place, token["token_id"]]), abs=2e-4)
    assert tokens[0]["token_id"] == dense.tokens["free"][0]["token_id"]
    first_s = side.ends["free"].first_token_s
    assert first_s is not None
    assert first_s >= 0.4  # its pass over the prompt comes before its first token


def test_the_first_divergence_is_the_first_token_that_differs(
    laboratory: Laboratory, tiny_folder: Path
) -> None:
    asked = request(tiny_folder, policies=({**DIP, "density": 0.1},), max_tokens=30)
    shown = shown_of(laboratory, asked)
    dense, own = ([token["token_id"] for token in side.tokens["free"]] for side in shown.sides)
    place = shown.divergence(shown.sides[1])
    assert place is not None
    assert dense[:place] == own[:place]
    assert dense[place : place + 1] != own[place : place + 1]
    same = shown_of(laboratory, request(tiny_folder, policies=({**DIP, "density": 1.0},)))
    assert same.divergence(same.sides[1]) is None


def test_a_list_is_ranked_by_kl_and_divergence(laboratory: Laboratory, tiny_folder: Path) -> None:
    asked = request(tiny_folder, prompts=("ab", "c d e", "xyz"), policies=(DIP, ORACLE))
    folder, store = written(laboratory, asked)
    assert prompts_in(store, folder.id) == ["ab", "c d e", "xyz"]
    found = hurt(store, folder.id)
    assert len(found) == 6
    for row in found.itertuples():
        shown = generation(store, folder.id, int(row.item))
        assert shown is not None
        side = shown.sides[int(row.side)]
        assert row.kl == pytest.approx(side.mean("kl", "forced"))
        divergence = shown.divergence(side)
        assert (None if str(row.divergence) == "<NA>" else row.divergence) == divergence


def test_pieces_of_a_text_are_prompts(laboratory: Laboratory, tiny_folder: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("abcdefghij" * 10)
    asked = request(tiny_folder, prompts=(), text=str(text), pieces=3, piece_tokens=5, max_tokens=2)
    folder, store = written(laboratory, asked)
    assert prompts_in(store, folder.id) == ["abcde", "hijab", "fghij"]
    long = request(tiny_folder, prompts=(), text=str(text), pieces=30, piece_tokens=5)
    with pytest.raises(UserError, match="has 100 tokens, but 30 prompts of 5 need 150; ask for fewer"):
        run_generation(RunFolder.create(laboratory.home, long, "prompts"), laboratory)


def test_hostile_text_comes_back_as_it_was(laboratory: Laboratory, tiny_folder: Path) -> None:
    evil = "<script>alert(1)</script>\x00\x1b[31m\u202e'; DROP TABLE runs; --\n\t\"${1}$$\\"
    folder, store = written(laboratory, request(tiny_folder, prompts=(evil,)))
    shown = generation(store, folder.id)
    assert shown is not None
    assert shown.prompt == evil


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"prompts": ("  \n",)}, "the prompt is empty"),
        ({"prompts": ()}, "give a prompt"),
        ({"prompts": ("a", "")}, "the prompt is empty"),
        ({"prompts": ("a" * 200_001,)}, "at most 200,000 characters, not 200,001"),
        ({"prompts": ("a", "a\ud800b")}, "prompt 2 is no text at character 2"),
        ({"policies": (DIP,) * 4}, "at most 3 policies"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": -1.0}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"policies": ({"method": "dib"},)}, "did you mean 'dip'"),
        ({"policies": ({"method": "dip", "density": 7},)}, "density"),
        ({"policies": ({"method": "prompt_attribution"},), "prefill": "sparse"}, "set prefill to dense"),
    ],
)
def test_a_wrong_request_is_one_sentence(tiny_folder: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as refused:
        request(tiny_folder, **changes).plans()
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"prompts": ("a" * 200,)}, "context holds 128"),
        ({"max_tokens": 128}, "context holds 128; shorten the prompt or the text"),
        ({"style": "chat"}, "no chat template; choose the raw prompt"),
        ({"model": "/nowhere/at/all"}, "There is no folder /nowhere/at/all"),
    ],
)
def test_what_cannot_be_written_fails_with_a_sentence(
    laboratory: Laboratory, tiny_folder: Path, changes: dict[str, Any], sentence: str
) -> None:
    folder = RunFolder.create(laboratory.home, request(tiny_folder, **changes), "generation")
    with pytest.raises(UserError, match=sentence):
        run_generation(folder, laboratory)
    end = folder.events()[-1]
    assert (end["kind"], end["status"]) == ("run_finished", "failed")
    assert sentence in end["message"]


def test_a_stop_keeps_the_text_so_far_with_its_colours(laboratory: Laboratory, tiny_folder: Path) -> None:
    asked = request(tiny_folder, max_tokens=100, temperature=5.0, policies=(DIP, CACHED))
    folder = RunFolder.create(laboratory.home, asked, "generation")
    original = RunFolder.raise_if_cancelled
    calls = []

    def stop(self: RunFolder) -> None:
        calls.append(1)
        if len(calls) == 20:
            folder.raise_flag("cancel")
        original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "raise_if_cancelled", stop)
        assert run_generation(folder, laboratory) == "cancelled"
    store = Store.in_memory(laboratory.home)
    shown = generation(store, folder.id)
    assert shown is not None
    for side in shown.sides:
        tokens = side.tokens["free"]
        assert 2 <= len(tokens) <= 9
        assert all(token["kl"] is not None for token in tokens)
        assert side.ends["free"].ended in ("stopped", "end token")
    ranked = hurt(store, folder.id).set_index("side")["divergence"]
    dense = [token["token_id"] for token in shown.sides[0].tokens["free"]]
    for side in shown.sides[1:]:
        own = [token["token_id"] for token in side.tokens["free"]]
        differing = [place for place, (a, b) in enumerate(zip(dense, own, strict=False)) if a != b]
        assert shown.divergence(side) == (differing[0] if differing else None)
        assert ranked[side.number] is pd.NA if not differing else ranked[side.number] == differing[0]


@pytest.mark.parametrize(
    ("ended", "places"),
    [("stopped", [None, None]), (None, [None, None]), ("end token", [3, None]), ("length", [3, None])],
)
def test_a_text_that_was_cut_does_not_differ_where_it_was_cut(
    home: Home, ended: str | None, places: list[int | None]
) -> None:
    """Side 1 is dense's text but shorter, side 2 is longer; dense itself was stopped."""
    write_cut_sides(home, dense=(5, "stopped"), sides=[(3, ended), (9, "length")])
    store = Store.in_memory(home)
    shown = generation(store, "cut")
    assert shown is not None
    assert [shown.divergence(side) for side in shown.sides[1:]] == places
    ranked = hurt(store, "cut")["divergence"]
    assert [None if value is pd.NA else value for value in ranked] == places


def test_the_token_of_the_prompt_is_in_no_mean(home: Home) -> None:
    write_cut_sides(home, dense=(4, "length"), sides=[(4, "length"), (1, "end token")])
    store = Store.in_memory(home)
    shown = generation(store, "cut")
    assert shown is not None
    assert shown.sides[1].mean("kl", "free") == pytest.approx((1 + 2 + 3) / 3)
    assert shown.sides[2].mean("kl", "free") is None
    kl = hurt(store, "cut")["kl"].tolist()
    assert kl[0] == pytest.approx(2)
    assert len(kl) == 2
    assert pd.isna(kl[1])


def test_an_error_in_the_middle_keeps_the_text_so_far_and_ends_each_side(
    laboratory: Laboratory, tiny_folder: Path
) -> None:
    asked = request(tiny_folder, max_tokens=100, temperature=5.0, policies=(DIP,))
    folder = RunFolder.create(laboratory.home, asked, "generation")
    calls: list[int] = []

    def fails() -> None:
        calls.append(1)
        if len(calls) == 7:
            raise UserError("No memory is left.")

    with pytest.raises(UserError, match="No memory"):
        run_generation(folder, laboratory, between_tokens=fails)
    shown = generation(Store.in_memory(laboratory.home), folder.id)
    assert shown is not None
    for side in shown.sides:
        assert side.ends["free"].ended in ("stopped", "end token")
        assert all(token["kl"] is not None for token in side.tokens["free"])


def stopping_after(steps: int) -> Callable[[], None]:
    """Return what stops a run before that step."""
    calls: list[int] = []

    def stop() -> None:
        calls.append(1)
        if len(calls) == steps:
            raise Cancelled

    return stop


def test_a_stopped_run_begun_again_replaces_its_text(laboratory: Laboratory, tiny_folder: Path) -> None:
    asked = request(tiny_folder, max_tokens=40, temperature=5.0)
    folder = RunFolder.create(laboratory.home, asked, "generation")
    assert run_generation(folder, laboratory, between_tokens=stopping_after(4)) == "cancelled"
    store = Store.in_memory(laboratory.home)
    part = generation(store, folder.id)
    assert part is not None
    assert run_generation(folder, laboratory) == "done"
    store.ingest()
    shown = generation(store, folder.id)
    assert shown is not None
    for whole, begun in zip(shown.sides, part.sides, strict=True):
        assert whole.text("free").startswith(begun.text("free"))
        assert len(whole.tokens["free"]) > len(begun.tokens["free"])
        assert whole.ends["free"].ended != "stopped"
        assert [token["place"] for token in whole.tokens["free"]] == list(range(len(whole.tokens["free"])))


@pytest.mark.parametrize("forced", [True, False])
def test_a_resumed_list_goes_on_behind_what_is_complete(
    laboratory: Laboratory, tiny_folder: Path, forced: bool
) -> None:
    prompts = ("ab", "ab c", "xyz")
    asked = request(tiny_folder, prompts=prompts, max_tokens=8, policies=(DIP, ORACLE), forced=forced)
    whole, _ = written(laboratory, asked)
    folder = RunFolder.create(laboratory.home, asked, "prompts")

    def second_is_begun() -> None:
        if sum(event["kind"] == "generation_started" for event in folder.events()) == 2:
            raise Cancelled

    assert run_generation(folder, laboratory, between_tokens=second_is_begun) == "cancelled"
    assert run_generation(folder, laboratory) == "done"
    events = folder.events()
    begun = [event["item"] for event in events if event["kind"] == "generation_started"]
    assert begun == [0, 1, 1, 2]
    progress = [(event["done"], event["total"]) for event in events if event["kind"] == "progress"]
    assert progress == [(1, 3), (2, 3), (3, 3)]
    store = Store.in_memory(laboratory.home)
    for item in range(3):
        found, expected = generation(store, folder.id, item), generation(store, whole.id, item)
        assert found is not None
        assert expected is not None
        for mine, its in zip(found.sides, expected.sides, strict=True):
            assert {form: mine.text(form) for form in mine.tokens} == {
                form: its.text(form) for form in its.tokens
            }


def test_a_bundle_carries_the_texts(laboratory: Laboratory, tiny_folder: Path, tmp_path: Path) -> None:
    folder, store = written(laboratory, request(tiny_folder))
    export_run(store, folder.id, tmp_path / "bundle")
    other = Store.open(Home.resolve(tmp_path / "other"))
    with other:
        assert import_bundle(other, tmp_path / "bundle") == [folder.id]
        assert generation(other, folder.id) == generation(store, folder.id)


def test_all_settings_are_kept_even_those_at_their_defaults(
    laboratory: Laboratory, tiny_folder: Path
) -> None:
    folder = RunFolder.create(laboratory.home, request(tiny_folder), "generation")
    spec = json.loads((folder.path / "run.json").read_text())["spec"]
    assert {"top_p", "seed", "prefill", "order", "forced", "dtype", "max_tokens"} <= set(spec)
    assert GenerationRequest.parse(spec, "again") == request(tiny_folder)
