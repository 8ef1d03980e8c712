"""The page Generations on made-up texts, without a worker."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from backend.errors import UserError
from backend.experiments import client
from backend.figures.generations import colours_of, strip_spec
from backend.figures.strip_files import strip_html
from backend.generations import GenerationRequest
from backend.home import Home
from backend.results import Store
from backend.results.generations import generation
from pages._shared.generation_list import read_prompts
from tests.figures.figures_samples import MODEL
from tests.pages.generation_samples import RUN, components, control_of, strips_of, write_generation

Open = Callable[..., AppTest]


@pytest.fixture
def home(empty_home: Home) -> Home:
    write_generation(empty_home)
    return empty_home


@pytest.fixture
def asked(home: Home, monkeypatch: pytest.MonkeyPatch) -> list[tuple[GenerationRequest, str]]:
    """What the page asks of the worker, which is not there."""
    found: list[tuple[GenerationRequest, str]] = []

    def submit(_home: Home, request: GenerationRequest, kind: str) -> str:
        found.append((request, kind))
        run = f"20260103-00000{len(found)}-generation-0002"
        write_generation(home, run, prompts=request.prompts, policies=request.policies)
        return run

    monkeypatch.setattr(client, "submit", submit)
    return found


def captions(page: AppTest) -> str:
    return "\n".join(caption.value for caption in page.caption)


def test_an_empty_home_says_what_to_do(empty_home: Home, open_page: Open) -> None:
    page = open_page("generations")
    assert "Press Generate" in page.info[0].value
    assert not page.error


def test_the_newest_is_shown_with_speed_density_kl_and_divergence(home: Home, open_page: Open) -> None:
    page = open_page("generations")
    said = captions(page)
    assert "10.0 tokens/s measured (gathered)" in said
    assert "MLP density 0.500" in said
    assert "mean KL 0.300 nats" in said
    assert "differs from token 4 on" in said
    assert "Free-running: each side goes on from its own text" in said
    assert any("oracle" in markdown.value for markdown in page.markdown)
    page.radio(key="form").set_value("Forced on the reference's text").run()
    assert "Forced: the dense model's text" in captions(page)
    assert "differs from" not in captions(page)
    assert not page.exception


def test_a_hostile_prompt_is_shown_as_text(home: Home, open_page: Open) -> None:
    page = open_page("generations")
    assert any(text.value.startswith("<img src=x onerror=alert(1)>␛[31m⟨202E⟩ &") for text in page.text)
    for element in (*page.markdown, *page.caption, *page.get("html")):
        assert "onerror" not in str(getattr(element, "value", element.proto))


def test_each_colour_can_be_chosen_and_stands_in_the_address(home: Home, open_page: Open) -> None:
    names = list(control_of(open_page("generations"))["legends"])
    assert names[0] == "KL(dense‖sparse)"
    assert "MLP density" in names
    for name in names:
        page = open_page("generations", colour=name.lower())
        assert control_of(page)["chosen"] == name
        assert page.query_params["colour"] == name.lower()
        for strip in strips_of(page):
            assert list(strip["colourings"]) == names
            assert {len(each) for each in strip["colourings"].values()} == {len(strip["tokens"])}
        assert not page.warning


def test_a_colour_that_another_text_has_not_is_left_without_a_word(home: Home, open_page: Open) -> None:
    other = "20260101-000000-generation-0009"
    write_generation(home, other, model="smollm2-moe", policies=({"method": "cache_prior", "slots": 20},))
    page = open_page("generations", generation=RUN, colour="Δlog p (sparse − dense)")
    page.selectbox(key="generation_pick").set_value(other).run()
    assert control_of(page)["chosen"] == "KL(original‖policy)"
    assert "colour" not in page.query_params
    assert not page.warning
    assert not page.exception


def test_a_strip_has_the_colours_of_the_files(home: Home, open_page: Open) -> None:
    strip = strips_of(open_page("generations"))[1]
    with Store.open(home) as store:
        store.ingest()
        shown = generation(store, RUN, 0)
    assert shown is not None
    for colour in colours_of(shown):
        drawn = strip_spec(shown, shown.sides[1], "free", colour).strip
        assert drawn is not None
        looks = re.findall(r"<span(?: style=\"background:(.*?);color:(.*?)\")?", strip_html(drawn))
        for number, (ground, ink) in zip(strip["colourings"][colour.scale.label], looks, strict=True):
            look = strip["looks"][number]
            assert bool(look) == bool(ground)
            if look:
                assert look.endswith(f"color:{ink}")
                assert _channels(look) == pytest.approx(_channels(ground), abs=2)


def _channels(look: str) -> list[int]:
    found = re.search(r"rgb\((\d+),(\d+),(\d+)\)", look)
    assert found is not None
    return [int(part) for part in found.groups()]


def test_the_addresss_token_shows_both_sides_and_its_layers(home: Home, open_page: Open) -> None:
    page = open_page("generations", token="1.4")
    frames = [frame.value for frame in page.dataframe if "Probability" in frame.value.columns]
    assert [list(frame["Token"]) for frame in frames] == [[" <b>is</b>", "<i>"], ["dense"]]
    assert frames[0]["Taken"].tolist() == ["✓", ""]
    assert any("rank under dense 4" in text.value for text in page.text)
    assert not page.exception


@pytest.mark.parametrize("token", ["1.99", "7.1"])
def test_a_token_that_is_not_there_is_said(home: Home, open_page: Open, token: str) -> None:
    page = open_page("generations", token=token)
    assert "which there is not here" in captions(page)
    assert not page.exception


def test_a_token_without_a_generation_is_looked_for_in_the_newest(home: Home, open_page: Open) -> None:
    assert "names a token but no generation" in open_page("generations", token="1.4").warning[0].value
    assert not open_page("generations", token="1.4", generation=RUN).warning


def test_a_choice_names_its_generation_too(home: Home, open_page: Open) -> None:
    page = open_page("generations")
    assert "generation" not in page.query_params
    page.radio(key="form").set_value("Forced on the reference's text").run()
    assert page.query_params["generation"] == RUN


@pytest.mark.parametrize("token", ["1", "a.b", "-1.2", "1.²", "9" * 9 + ".1"])
def test_what_is_no_token_is_none(home: Home, open_page: Open, token: str) -> None:
    page = open_page("generations", token=token)
    assert "Click a token" in captions(page)
    assert not page.exception


def test_prompts_are_ranked_and_one_can_be_opened(home: Home, open_page: Open) -> None:
    page = open_page("generations")
    ranked = next(frame.value for frame in page.dataframe if "Mean KL (nats) ↓" in frame.value.columns)
    assert ranked["Prompt"].tolist()[0] == "second"
    assert ranked["Mean KL (nats) ↓"].tolist() == pytest.approx([0.6, 0.3])
    assert ranked["Differs from token"].tolist() == [4, 4]
    second = open_page("generations", generation=RUN, prompt="2")
    assert "mean KL 0.600 nats" in captions(second)


def test_generate_asks_the_worker_and_shows_what_comes(
    asked: list[tuple[GenerationRequest, str]], open_page: Open
) -> None:
    page = open_page("generations")
    page.text_area(key="generate_prompt").set_value("Why?").run()
    page.slider(key="generate_count").set_value(2).run()
    page.button(key="generate").click().run()
    assert not page.exception
    ((request, kind),) = asked
    assert kind == "generation"
    assert request.prompts == ("Why?",)
    # The form starts with what the shown generation had asked for.
    assert (request.temperature, request.max_tokens, request.model) == (0.7, 8, MODEL)
    assert [policy["method"] for policy in request.policies] == ["dip", "gxo"]
    assert page.query_params["generation"] == "20260103-000001-generation-0002"


def test_an_empty_prompt_is_a_sentence_and_no_button(home: Home, open_page: Open) -> None:
    page = open_page("generations")
    page.text_area(key="generate_prompt").set_value("   ").run()
    assert "the prompt is empty" in page.error[0].value
    assert "generate" not in [button.key for button in page.button]
    assert not page.exception


def test_a_changed_slider_writes_anew_after_a_pause(
    asked: list[tuple[GenerationRequest, str]], open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = open_page("generations")
    page.toggle(key="generation_live").set_value(True).run()
    page.button(key="generate").click().run()
    assert len(asked) == 1
    page.slider(key="generate_0_density_dip").set_value(0.3).run()
    page.slider(key="generate_0_density_dip").set_value(0.25).run()
    assert len(asked) == 1
    monkeypatch.setattr("pages._shared.generation_form.PAUSE_SECONDS", 0.0)
    page.run()
    assert [request.policies[0]["density"] for request, _ in asked] == [0.5, 0.25]
    page.run()
    assert len(asked) == 2


def test_a_slider_writes_anew_though_nothing_was_asked_for_yet(
    asked: list[tuple[GenerationRequest, str]], open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pages._shared.generation_form.PAUSE_SECONDS", 0.0)
    page = open_page("generations")
    page.toggle(key="generation_live").set_value(True).run()
    assert asked == []
    page.slider(key="generate_0_density_dip").set_value(0.3).run()
    assert [request.policies[0]["density"] for request, _ in asked] == [0.3]


def test_the_form_starts_with_the_shown_policies(empty_home: Home, open_page: Open) -> None:
    write_generation(
        empty_home, policies=({"method": "glu_pruning", "keep": 0.25}, {"method": "dip", "density": 0.35})
    )
    page = open_page("generations")
    assert page.slider(key="generate_0_density_glu_pruning").value == 0.75
    assert page.slider(key="generate_1_density_dip").value == 0.35


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "dip", "density": 0.01},  # no density that the slider reaches makes it
        {"method": "dip", "density": 0.4321},
        {"method": "glu_pruning", "keep": 0.0123},
    ],
)
def test_a_policy_that_no_density_makes_starts_with_its_own_settings(
    asked: list[tuple[GenerationRequest, str]], empty_home: Home, open_page: Open, settings: dict[str, Any]
) -> None:
    write_generation(empty_home, "20260104-000000-generation-0003", policies=(settings,))
    page = open_page("generations")
    assert page.radio(key="generate_by_0").value == "Own settings"
    page.button(key="generate").click().run()
    assert not page.exception
    assert asked[0][0].policies[0].items() >= settings.items()


def test_a_killed_worker_is_said_and_the_text_is_kept(empty_home: Home, open_page: Open) -> None:
    write_generation(empty_home, status=None)
    page = open_page("generations")
    assert "The worker ended in the middle; the text so far is kept." in page.warning[0].value
    assert "6 tokens" in captions(page)


def test_a_failed_generation_says_why(empty_home: Home, open_page: Open) -> None:
    write_generation(empty_home, status="failed", prompts=("x",))
    assert open_page("generations").error[0].value == "written"


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ({"generation": "<script>"}, "`<script>`, which there is not"),
        ({"generation": "![x](http://host/p.png)"}, "`![x](http://host/p.png)`, which"),
        ({"generation": "` ![x](http://host/p.png) `"}, "`![x](http://host/p.png)`, which"),
        ({"colour": "`![x](http://host/p.png)"}, "`![x](http://host/p.png)`, which there is not"),
        ({"colour": "Beauty"}, "`Beauty`, which there is not"),
        ({"form": "both"}, "`both`, which there is not"),
    ],
)
def test_a_bad_address_is_a_sentence_and_the_default(
    home: Home, open_page: Open, address: dict[str, Any], sentence: str
) -> None:
    page = open_page("generations", **address)
    assert sentence in page.warning[0].value
    assert "mean KL 0.300" in captions(page)


@pytest.mark.parametrize("number", ["0", "99", "x", "²", "-1"])
def test_a_prompt_that_there_is_not_is_said_and_the_first(home: Home, open_page: Open, number: str) -> None:
    page = open_page("generations", generation=RUN, prompt=number)
    assert "it must be a number from 1 to 2" in page.warning[0].value
    assert page.selectbox(key=f"generation_item_{RUN}").value == 0
    assert not page.error


def test_a_generation_stopped_in_the_queue_says_so(home: Home, open_page: Open) -> None:
    other = "20260104-000000-generation-0003"
    write_generation(home, other, status="cancelled", prompts=("x",))
    folder = home.runs / other
    lines = (folder / "events.jsonl").read_text().splitlines(keepends=True)
    (folder / "events.jsonl").write_text(lines[0] + lines[-1])
    page = open_page("generations", generation=other)
    assert "Stopped before a token was written." in [info.value for info in page.info]


def test_a_long_text_is_shown_in_parts(empty_home: Home, open_page: Open) -> None:
    write_generation(empty_home, words=tuple(f" w{n}" for n in range(1_200)), prompts=("x",))
    page = open_page("generations")
    assert page.selectbox(key="tokens").options == ["1–512", "513–1,024", "1,025–1,536"]
    assert len(strips_of(page)[0]["tokens"]) == 512
    page.selectbox(key="tokens").set_value("1,025–1,536").run()
    assert [text for text, _ in strips_of(page)[0]["tokens"]] == [f" w{n}" for n in range(1_024, 1_200)]


def test_the_part_of_the_addresss_token_is_shown(empty_home: Home, open_page: Open) -> None:
    write_generation(empty_home, words=tuple(f" w{n}" for n in range(1_200)), prompts=("x",))
    page = open_page("generations", token="1.600")
    assert page.selectbox(key="tokens").value == "513–1,024"
    assert components(page, "token_strip")[1]["first"] + 87 == components(page, "token_strip")[1]["selected"]
    assert open_page("generations", token="1.0").selectbox(key="tokens").value == "1–512"


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("a.txt", "one\n\ntwo\n", ("one", "two")),
        ("a.csv", 'id,Question\n1,"a, b"\n2,c\n', ("a, b", "c")),
        ("a.jsonl", '{"prompt": "x\\ny"}\n\n{"prompt": "z"}\n', ("x\ny", "z")),
        ("a.txt", "\ufeffone", ("one",)),
    ],
)
def test_prompts_of_a_file(name: str, content: str, found: tuple[str, ...]) -> None:
    assert read_prompts(name, content.encode()) == found


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.txt", b"\n\n", "holds no prompt"),
        ("a.txt", b"\xff\xfe", "is not UTF-8"),
        ("a.csv", b"id,name\n1,2\n", "has no column 'prompt'"),
        ("a.jsonl", b"{", "is no JSON Lines"),
        ("a.jsonl", b"[1]", "each line has to be an object"),
        ("a.txt", b"x\n" * 65, "has 65 prompts"),
        ("a.csv", b"prompt\n" + b"x" * 131_073 + b"\n", "a field holds at most 131,072 characters"),
        ("a.jsonl", b"[" * 100_000, "nests too deeply"),
    ],
)
def test_a_wrong_file_of_prompts_is_a_sentence(name: str, content: bytes, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        read_prompts(name, content)
