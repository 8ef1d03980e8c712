"""The page Generations for a mixture of experts: its form, and what it says of stored texts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from backend.experiments import client
from backend.generations import GenerationRequest
from backend.home import Home
from backend.routing import ROUTINGS
from backend.sparsity import METHODS
from tests.pages.generation_samples import control_of, write_generation

Open = Callable[..., AppTest]
PRIOR = {"method": "cache_prior", "lambda_": 0.4, "slots": 20}


@pytest.fixture
def asked(empty_home: Home, monkeypatch: pytest.MonkeyPatch) -> list[GenerationRequest]:
    """What the page asks of the worker, which is not there."""
    found: list[GenerationRequest] = []

    def submit(home: Home, request: GenerationRequest, kind: str) -> str:
        found.append(request)
        run = "20260103-000001-generation-0002"
        write_generation(home, run, model=request.model, prompts=request.prompts, policies=request.policies)
        return run

    monkeypatch.setattr(client, "submit", submit)
    return found


def titles(page: AppTest, key: str) -> set[str]:
    return set(page.selectbox(key=key).options)


def test_the_form_offers_the_policies_of_the_models_kind(
    asked: list[GenerationRequest], open_page: Open
) -> None:
    page = open_page("generations")
    masks = {METHODS[name].title for name in METHODS if name != "dense"}
    routings = {ROUTINGS[name].title for name in ROUTINGS if name != "original"}
    assert titles(page, "generate_method_0") == masks
    page.selectbox(key="generate_model").set_value("smollm2-moe").run()
    assert not page.exception
    assert titles(page, "generate_routing_0") == routings
    assert not any(radio.key == "generate_prefill" for radio in page.radio)
    page.button(key="generate").click().run()
    (request,) = asked
    reference, policy = request.plans()
    assert (reference.name, policy.name) == ("original", "cache_prior")
    assert policy.canonical()["lambda_"] == 0.2
    assert policy.canonical()["cache_share"] == 0.5
    page.selectbox(key="generate_model").set_value("smollm2-135m").run()
    assert titles(page, "generate_method_0") == masks


def test_a_routing_policys_settings_are_asked_for(asked: list[GenerationRequest], open_page: Open) -> None:
    page = open_page("generations")
    page.selectbox(key="generate_model").set_value("smollm2-moe").run()
    page.selectbox(key="generate_routing_0").set_value("max_rank").run()
    page.number_input(key="generate_0_max_rank_m").set_value(24).run()
    page.number_input(key="generate_0_max_rank_slots").set_value(30).run()
    page.button(key="generate").click().run()
    assert not page.exception
    said: dict[str, Any] = asked[0].policies[0]
    assert (said["method"], said["m"], said["slots"]) == ("max_rank", 24, 30)


def test_a_token_of_a_mixture_names_its_experts(empty_home: Home, open_page: Open) -> None:
    layers = {
        "mlp_density": [0.25, 0.75],
        "experts_per_token.entries": [[3, 1], [0, 2]],
        "expert_misses.entries": [[3], []],
    }
    write_generation(empty_home, model="smollm2-moe", policies=(PRIOR,), layers=layers)
    page = open_page("generations", token="1.3")
    assert not page.exception
    table = next(frame.value for frame in page.dataframe if "Missed" in frame.value.columns)
    assert table["Experts used, best first"].tolist() == ["3 1", "0 2"]
    assert table["Missed"].tolist() == ["3", ""]


def test_a_stored_text_names_its_reference_and_fills_the_form(empty_home: Home, open_page: Open) -> None:
    write_generation(empty_home, model="smollm2-moe", policies=(PRIOR,))
    page = open_page("generations")
    assert not page.exception
    said = "\n".join(each.value for each in page.markdown)
    assert "**Original routing**" in said
    assert "**Dense**" not in said
    assert control_of(page)["chosen"] == "KL(original‖policy)"
    assert "Forced on the reference's text" in page.radio(key="form").options
    assert page.number_input(key="generate_0_cache_prior_lambda_").value == 0.4
    assert page.number_input(key="generate_0_cache_prior_slots").value == 20
