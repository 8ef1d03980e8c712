"""Answers to questions beside the dense model's own: the paper's protocol, and label-free methods in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from backend.evaluation.questions import PromptStyle
from backend.experiments.evaluations.kinds import Evaluation, Outcome, evaluation_kind
from backend.settings import setting
from backend.sparsity.policy import Policy

if TYPE_CHECKING:
    from backend.evaluation.answers import AnswerReference
    from backend.experiments.laboratory import Laboratory, Subject


@evaluation_kind
class AnswersEvaluation(Evaluation):
    """Greedy answers to questions, prompt and first token dense, against the dense model's answers."""

    kind = "answers"

    text: str = setting("truthfulqa", "Named questions (truthfulqa) or the path of a CSV file of them.")
    questions: int = setting(100, "Questions, spread evenly over the set.", unit="questions", ge=1)
    max_tokens: int = setting(64, "Longest answer of the dense model.", unit="tokens", ge=2, le=4096)
    form: Literal["forced", "free"] = setting(
        "forced",
        "forced: the context is the dense answer, each token predicted on its own; free: the sparse model "
        "goes on from its own text.",
    )
    prompt: PromptStyle = setting(
        "chat", "chat: the model's own chat template; instruct: 'Instruct: {question}' and 'Output:'."
    )

    @property
    def steps(self) -> int:
        """Number of questions."""
        return self.questions

    def outcomes(self, laboratory: Laboratory, model: str, policy: Policy) -> Iterator[Outcome]:
        """Compare answers question by question."""
        from backend.evaluation.answers import evaluate_answers
        from backend.evaluation.questions import read_questions
        from backend.experiments.calibration import calibrate

        subject = laboratory.subject(model, self.dtype)
        reference = self._reference(laboratory, subject)
        questions = read_questions(laboratory.text(self.text), self.questions)
        asked = [subject.loaded.tokenizer(each, verbose=False)["input_ids"] for each in questions]
        found = calibrate(laboratory, model, self.dtype, policy, asked)
        outcomes = evaluate_answers(subject.engine, policy, reference, self.form, found.fitted)
        yield from found.noted(outcomes)

    def _reference(self, laboratory: Laboratory, subject: Subject) -> AnswerReference:
        from backend.evaluation.answers import AnswerReference
        from backend.evaluation.questions import prompt_ids, read_questions

        text = laboratory.text(self.text)

        def make() -> AnswerReference:
            tokenizer = subject.loaded.tokenizer
            asked = read_questions(text, self.questions)
            prompts = [prompt_ids(tokenizer, question, self.prompt) for question in asked]
            return AnswerReference(prompts, tokenizer, self.max_tokens, laboratory.passes)

        return laboratory.kept(("answers", text.sha256, self.questions, self.max_tokens, self.prompt), make)
