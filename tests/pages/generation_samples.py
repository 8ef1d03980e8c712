"""A made-up generation of two prompts and two policies, as the worker writes it, and what its page shows."""

from __future__ import annotations

import json
from typing import Any

from streamlit.testing.v1 import AppTest

from backend.generations import GenerationRequest
from backend.home import Home
from tests.figures.figures_samples import MODEL

RUN = "20260102-000000-generation-0001"
EVIL = "<img src=x onerror=alert(1)>\x1b[31m\u202e & **bold** $x$ :red[x]"
WORDS = ("The", " sea", "\n", " <b>is</b>", " salt", "")


def components(page: AppTest, name: str) -> list[dict[str, Any]]:
    """Return what the page gives to its components of a name, in their order."""
    protos = (element.proto for element in page.get("bidi_component"))
    return [json.loads(proto.json) for proto in protos if proto.component_name == name]


def control_of(page: AppTest) -> dict[str, Any]:
    """Return what the control of colours was given."""
    return components(page, "token_colours")[0]


def strips_of(page: AppTest) -> list[dict[str, Any]]:
    """Return what each strip shows, in every colouring."""
    return [json.loads(data["strip"]) for data in components(page, "token_strip")]


def write_generation(
    home: Home,
    run: str = RUN,
    *,
    status: str | None = "done",
    words: tuple[str, ...] = WORDS,
    layers: dict[str, list[Any]] | None = None,
    **asked: Any,
) -> None:
    """Write a run folder; without a status it is one whose process is gone."""
    said = {
        "model": MODEL, "prompts": (EVIL, "second"), "policies": ({"method": "dip", "density": 0.5},
        {"method": "gxo", "keep": 0.5}), "max_tokens": 8, "temperature": 0.7, **asked,
    }  # fmt: skip
    request = GenerationRequest.parse(said, "sample")
    folder = home.runs / run
    folder.mkdir(parents=True)
    at = "2026-01-02T00:00:00+00:00"
    kind = "prompts" if request.is_list else "generation"
    head = {"run": run, "name": "generation", "kind": kind, "created_at": at, "spec": request.as_asked()}
    (folder / "run.json").write_text(json.dumps(head))
    gone = {"pid": 1, "started": 1.0}
    events: list[dict[str, Any]] = [{"kind": "run_started", "provenance": {"process": gone}}]
    for item, prompt in enumerate(request.prompts):
        events += _item(request, item, prompt, words, layers or {"mlp_density": [0.25, 0.75]})
    if status is not None:
        events.append({"kind": "run_finished", "status": status, "message": "written"})
    lines = [json.dumps({"at": at, **event}) + "\n" for event in events]
    (folder / "events.jsonl").write_text("".join(lines))


def _item(
    request: GenerationRequest, item: int, prompt: str, words: tuple[str, ...], layers: dict[str, list[Any]]
) -> list[dict[str, Any]]:
    sides = [
        {
            "side": number, "policy": policy.name, "policy_version": 1, "settings": policy.canonical(),
            "how": policy.how, "execution": "gathered", "no_text": "no text" if policy.name == "gxo" else "",
        }
        for number, policy in enumerate(request.plans())
    ]  # fmt: skip
    events: list[dict[str, Any]] = [
        {
            "kind": "generation_started", "item": item, "model": request.model, "model_sha256": "m",
            "prompt": prompt, "read_as": f"<|user|>{prompt}", "prompt_tokens": 5, "sides": sides,
        }
    ]  # fmt: skip
    for side in sides:
        forms = ["free"] if side["side"] == 0 else ["forced"] if side["no_text"] else ["free", "forced"]
        for form in forms:
            events += _side(item, int(side["side"]), form, words, layers)
    return events


def _side(
    item: int, side: int, form: str, words: tuple[str, ...], layers: dict[str, list[Any]]
) -> list[dict[str, Any]]:
    where = {"item": item, "side": side, "form": form}
    column = {
        "name": "mlp_density", "label": "MLP density", "unit": "share of MLP weights", "better": None,
        "range": [0, 1],
    }  # fmt: skip
    tokens = [
        {
            "id": place + (100 if side and form == "free" and place > 2 else 0), "text": word,
            "logprob": -0.5 * place, "seconds": 0.1 * place, "top": [[word, -0.5], ["<i>", -1.5]],
            "values": {"mlp_density": 0.5} if place else {},
            "layers": layers if place else {},
        }
        for place, word in enumerate(words)
    ]  # fmt: skip
    scores = [
        {
            "dense_logprob": -0.4 * place, "kl": side * (item + 1) * 0.1 * place,
            "dense_rank": place + 1, "top": [["dense", -0.1]],
        }
        for place in range(len(words))
    ]  # fmt: skip
    end = {
        "tokens": len(words), "ended": "length" if form == "free" else "forced", "seconds": 0.5,
        "tokens_per_s": 10.0 if form == "free" else None, "first_token_s": 0.2, "mlp_density": 0.5,
        "model_density": 0.7, "loop": "lean", "counted": {},
    }  # fmt: skip
    return [
        {"kind": "generation_tokens", **where, "first": 0, "tokens": tokens, "columns": [column]},
        {"kind": "generation_scores", **where, "first": 0, "tokens": scores},
        {"kind": "generation_side_ended", **where, **end},
    ]
