"""Answers beside the dense model's, on a tiny model and made-up questions."""

from __future__ import annotations

import math

import pytest
import torch

from backend.errors import UserError
from backend.evaluation.answers import AnswerReference, evaluate_answers
from backend.evaluation.questions import prompt_ids, read_questions
from backend.evaluation.text_overlap import bleu, corpus_bleu, rouge_l
from backend.evaluation.texts import Text, load_text
from backend.sparsity import make_policy
from tests.models_tiny import tiny_tokenizer

QUESTIONS = "\ufeffType,Question\n" + "".join(f"x,Made-up question {i}?\n" for i in range(10))


@pytest.fixture(scope="module")
def reference():
    tokenizer = tiny_tokenizer()
    asked = read_questions(Text.of("made-up.csv", QUESTIONS.encode()), 3)
    return AnswerReference([prompt_ids(tokenizer, q, "instruct") for q in asked], tokenizer, 8)


def evaluated(llama, reference, name, form="forced", **settings):
    *_, last = evaluate_answers(llama, make_policy(name, settings), reference, form)
    return last


def test_dense_answers_are_greedy_and_equal_themselves(llama, reference):
    said = reference.answer(llama, 0)
    ids = torch.tensor([said.prompt + said.answer])
    logits = llama.model(ids, use_cache=False).logits[0]
    assert logits.argmax(-1)[len(said.prompt) - 1 : -1].tolist() == said.answer
    for form in ("forced", "free"):
        result = evaluated(llama, reference, "dense", form)
        assert result.windows["bleu"] == pytest.approx([100.0] * 3)
        assert result.windows["rouge_l"] == pytest.approx([1.0] * 3)
        assert result.windows["token_agreement"] == [1.0] * 3


@pytest.mark.parametrize("name", ["gxo", "corrected_gxo", "random", "prompt_attribution"])
@pytest.mark.parametrize("form", ["forced", "free"])
def test_keeping_everything_is_the_dense_model(llama, reference, name, form):
    result = evaluated(llama, reference, name, form, keep=1.0)
    assert result.windows["token_agreement"] == [1.0] * 3
    if form == "forced":
        assert result.windows["kl"] == pytest.approx([0.0] * 3, abs=1e-6)
        assert result.windows["delta_nll"] == pytest.approx([0.0] * 3, abs=1e-6)


def test_forced_scores_are_those_of_a_slow_run_over_the_dense_answer(llama, reference):
    policy = make_policy("snip", {"keep": 0.3})
    result = evaluated(llama, reference, "snip", keep=0.3)
    said = reference.answer(llama, 1)
    dense = llama.model(torch.tensor([said.ids]), use_cache=False).logits[0].log_softmax(-1)
    hidden, _ = llama.hidden_states(policy, torch.tensor([said.ids]), prompt=len(said.prompt))
    sparse = llama.anatomy.head.logits(hidden[0]).log_softmax(-1)
    kl, loss, same = [], [], []
    for step, token in enumerate(said.answer[1:]):
        at = len(said.prompt) + step
        kl.append(float((dense[at].exp() * (dense[at] - sparse[at])).sum()))
        loss.append(float(dense[at, token] - sparse[at, token]))
        same.append(int(sparse[at].argmax()) == token)
    assert result.windows["kl"][1] == pytest.approx(sum(kl) / len(kl), rel=1e-3, abs=1e-5)
    assert result.windows["delta_nll"][1] == pytest.approx(sum(loss) / len(loss), rel=1e-3, abs=1e-5)
    assert result.windows["token_agreement"][1] == pytest.approx(sum(same) / len(same))


def test_prompt_and_first_token_are_dense_and_the_share_of_sparse_tokens_is_said(llama, reference):
    result = evaluated(llama, reference, "gxo", keep=0.25)
    found = {each["metric"]: each for each in result.measurements(4)}
    said = [reference.answer(llama, i) for i in range(3)]
    sparse = sum(len(each.answer) - 1 for each in said)
    assert result.reading.tokens == sparse
    assert found["sparse_tokens"]["value"] == pytest.approx(sparse / sum(len(each.ids) for each in said))
    assert found["mlp_density"]["value"] == pytest.approx(0.25)
    assert found["token_agreement"]["n"] == sparse
    assert found["bleu"]["n"] == 3
    assert found["bleu"]["how"] == "oracle"
    assert found["bleu"]["stderr"] is not None


def test_passes_kept_between_cells_change_nothing(llama, reference):
    first = evaluated(llama, reference, "corrected_gxo", keep=0.3)
    evaluated(llama, reference, "gxo", keep=0.3, label="second")
    again = evaluated(llama, reference, "corrected_gxo", keep=0.3)
    reference.passes.clear()
    reference.passes.limit_bytes = 0
    fresh = evaluated(llama, reference, "corrected_gxo", keep=0.3)
    assert first.windows == again.windows == fresh.windows


def test_overlaps_of_short_and_of_different_answers():
    assert bleu("yes", "yes") == pytest.approx(100)
    assert corpus_bleu(["a b c d"], ["a b c d"]) == pytest.approx(100)
    assert bleu("no no", "yes indeed") < 5
    # the longest common subsequence of 3 words: precision 3/4, recall 3/5
    assert rouge_l("the cat sat down", "the black cat sat there") == pytest.approx(
        2 * 0.75 * 0.6 / (0.75 + 0.6)
    )
    assert math.isclose(rouge_l("a", "b"), 0.0)


def test_questions_are_spread_over_the_set():
    text = Text.of("made-up.csv", QUESTIONS.encode())
    assert read_questions(text, 2) == ["Made-up question 0?", "Made-up question 5?"]
    with pytest.raises(UserError, match="10 questions, but 11"):
        read_questions(text, 11)
    with pytest.raises(UserError, match="no column 'Question'"):
        read_questions(Text.of("x.csv", b"a,b\n1,2\n"), 1)
    with pytest.raises(UserError, match="no chat template"):
        prompt_ids(tiny_tokenizer(), "Why?", "chat")
    with pytest.raises(UserError, match="TruthfulQA is read from"):
        load_text("truthfulqa")
