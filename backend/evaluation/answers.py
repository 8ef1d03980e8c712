"""Answers under a policy beside the dense model's own: the paper's protocol.

Prompt and first token are dense; every later token of the answer is sparse. Two forms:

* *forced*: the context is the dense answer, so each token is predicted on its own: loss and KL beside text;
* *free*: the sparse model goes on from its own text and KV cache, while the masks come from the dense run at
  the same index; it is cut where the dense answer ends.

Source: Song et al., arXiv 2406.06562. All overlaps are with the dense model's answer, not with a true one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from backend.evaluation.dense_passes import DensePasses
from backend.evaluation.scoring import DenseScores, score_dense, score_sparse
from backend.evaluation.statistics import Estimate, estimate
from backend.evaluation.text_overlap import bleu, corpus_bleu, rouge_l
from backend.sparsity import Policy, make_policy
from backend.sparsity.accounting import Reading
from backend.sparsity.dense_pass import DensePass
from backend.sparsity.engine import MaskedEngine

if TYPE_CHECKING:
    from torch import Tensor

    from backend.experiments.events import Measurement

Form = Literal["forced", "free"]
UNITS = {
    "bleu": "BLEU, 0–100", "rouge_l": "F1", "token_agreement": "share of tokens", "kl": "nats/token",
    "nll": "nats/token", "delta_nll": "nats/token",
}  # fmt: skip
PER_ANSWER = ("bleu", "rouge_l")
"""Metrics with one value an answer, each counted once; the others are means over tokens."""


@dataclass(frozen=True)
class DenseAnswer:
    """What the dense model says to one prompt.

    Attributes:
        prompt: Its tokens.
        answer: The greedy answer's tokens y_1 … y_n, the end token included if it was reached.
    """

    prompt: list[int]
    answer: list[int]

    @property
    def ids(self) -> list[int]:
        """Tokens that are fed: the prompt and y_1 … y_{n−1}; y_2 … y_n are predicted by sparse tokens."""
        return self.prompt + self.answer[:-1]


@dataclass
class AnswerReference:
    """The dense model's answers, made once and shared by every cell of a run.

    Attributes:
        prompts: The questions as the model reads them.
        tokenizer: The model's tokenizer.
        max_tokens: Longest answer.
        passes: Keeps dense passes between cells.
    """

    prompts: list[list[int]]
    tokenizer: Any
    max_tokens: int
    passes: DensePasses = field(default_factory=DensePasses)
    _answers: dict[int, DenseAnswer] = field(default_factory=dict, repr=False)
    _scores: dict[int, DenseScores] = field(default_factory=dict, repr=False)

    def answer(self, engine: MaskedEngine, index: int) -> DenseAnswer:
        """Return the dense model's answer to one question."""
        if index not in self._answers:
            self._answers[index] = DenseAnswer(self.prompts[index], self._say(engine, self.prompts[index]))
        return self._answers[index]

    def dense_pass(self, engine: MaskedEngine, index: int) -> DensePass:
        """Return the dense pass of a question's prompt and answer."""
        import torch

        def make() -> DensePass:
            said = self.answer(engine, index)
            ids = torch.tensor([said.ids], device=engine.model.device)
            return DensePass(engine.model, engine.anatomy, ids, len(said.prompt))

        return self.passes.of(self, index, make)

    def scores(self, engine: MaskedEngine, index: int) -> DenseScores:
        """Return the dense scores of the answer's tokens from the second on."""
        if index not in self._scores:
            import torch

            dense = self.dense_pass(engine, index)
            hidden, _ = engine.hidden_states(
                make_policy("dense", {}), dense.input_ids, prompt=dense.prompt, dense=dense
            )
            targets = torch.tensor(self.answer(engine, index).answer[1:], device=hidden.device)
            with torch.inference_mode():
                self._scores[index] = score_dense(engine.anatomy.head, hidden[0, dense.prompt :], targets)
        return self._scores[index]

    def text(self, tokens: Sequence[int]) -> str:
        """Return tokens as text, up to the end token."""
        ends = end_tokens(self.tokenizer)
        kept = next((tokens[:place] for place, token in enumerate(tokens) if token in ends), tokens)
        return str(self.tokenizer.decode(list(kept), skip_special_tokens=True))

    def _say(self, engine: MaskedEngine, prompt: list[int]) -> list[int]:
        import torch

        said: list[int] = []
        ends = end_tokens(self.tokenizer)
        cache = None
        ids = torch.tensor([prompt], device=engine.model.device)
        with torch.inference_mode():
            while len(said) < self.max_tokens and not (said and said[-1] in ends):
                cache, token = _step(engine, ids, cache)
                said.append(token)
                ids = ids.new_tensor([[token]])
        return said


def end_tokens(tokenizer: Any) -> frozenset[int]:
    """Return the tokens that end an answer."""
    return frozenset() if tokenizer.eos_token_id is None else frozenset([int(tokenizer.eos_token_id)])


@dataclass
class Answers:
    """Scores of the answers so far, and what was read for them.

    Attributes:
        policy: The policy.
        form: Forced or free.
        reading: What the sparse tokens read; dense ones (prompt, first token) are left out.
        calibration: What the policy was fitted to.
        fed: Tokens fed in all.
        windows: Metric → one value an answer.
    """

    policy: Policy
    form: Form
    reading: Reading
    calibration: Any = None
    fed: int = 0
    counts: list[int] = field(default_factory=list)
    windows: dict[str, list[float]] = field(default_factory=dict)
    said: list[tuple[str, str]] = field(default_factory=list)

    def add(self, said: str, reference: str, tokens: int, values: dict[str, float]) -> None:
        """Add one answer.

        Args:
            said: Its text.
            reference: The dense model's.
            tokens: How many of its tokens were predicted by sparse ones.
            values: Its means over tokens.
        """
        self.counts.append(tokens)
        self.said.append((said, reference))
        found = {"bleu": bleu(said, reference), "rouge_l": rouge_l(said, reference), **values}
        for metric, value in found.items():
            self.windows.setdefault(metric, []).append(value)

    def estimate(self, metric: str) -> Estimate:
        """Return a metric's mean with its standard error over answers; n counts answers or tokens."""
        counts = [1] * len(self.counts) if metric in PER_ANSWER else self.counts
        return estimate(self.windows[metric], counts)

    def measurements(self, value_bytes: int) -> list[Measurement]:
        """Return everything measured, as it is stored.

        Args:
            value_bytes: Bytes of one weight as it ran.
        """
        if not self.counts:
            return []
        found = [(metric, self.estimate(metric), UNITS[metric]) for metric in self.windows]
        answers = len(self.counts)
        pooled = corpus_bleu(*zip(*self.said, strict=True))
        found.append(("corpus_bleu", Estimate(pooled, None, answers), UNITS["bleu"]))
        tokens = self.reading.tokens
        read = {
            "mlp_density": (self.reading.mlp_density, "share of MLP weights"),
            "model_density": (self.reading.model_density, "share of all weights"),
            "bytes_per_token": (self.reading.bytes_per_token(value_bytes), "B/token"),
            "sparse_tokens": (tokens / self.fed, "share of tokens fed"),
            **self.reading.counted(value_bytes),
        }
        found += [(name, Estimate(value, None, tokens), unit) for name, (value, unit) in read.items()]
        return [
            {
                "metric": metric,
                "value": each.value,
                "stderr": each.stderr,
                "n": each.n,
                "unit": unit,
                "how": self.policy.how,
            }
            for metric, each, unit in found
        ]


def evaluate_answers(
    engine: MaskedEngine, policy: Policy, reference: AnswerReference, form: Form, calibration: Any = None
) -> Iterator[Answers]:
    """Compare a policy's answers with the dense model's, question by question.

    A dense answer of a single token has no sparse one, and is left out.

    Args:
        engine: The model.
        policy: The policy.
        reference: The dense answers.
        form: Forced or free.
        calibration: What the policy was fitted to.

    Yields:
        The growing result, once a question.
    """
    result = Answers(policy, form, Reading(engine.anatomy, policy), calibration)
    for index in range(len(reference.prompts)):
        said = reference.answer(engine, index)
        if len(said.answer) > 1:
            add = _add_forced if form == "forced" else _add_free
            add(engine, reference, index, result)
            result.fed += len(said.ids)
        yield result


def _add_forced(engine: MaskedEngine, reference: AnswerReference, index: int, result: Answers) -> None:
    import torch

    said = reference.answer(engine, index).answer
    expected = reference.scores(engine, index)
    dense = reference.dense_pass(engine, index)
    hidden, reading = engine.hidden_states(
        result.policy,
        dense.input_ids,
        sequences=(index,),
        calibration=result.calibration,
        prompt=dense.prompt,
        dense=dense,
    )
    with torch.inference_mode():
        scores = score_sparse(engine.anatomy.head, hidden[0, dense.prompt :], expected)
    result.reading.merge(reading)
    result.add(
        reference.text([said[0], *scores.top.tolist()]),
        reference.text(said),
        len(said) - 1,
        {
            "token_agreement": float((scores.top == expected.targets).double().mean()),
            "kl": float(scores.kl.mean()),
            "nll": float(scores.nll.mean()),
            "delta_nll": float((scores.nll - expected.nll).mean()),
        },
    )


def _add_free(engine: MaskedEngine, reference: AnswerReference, index: int, result: Answers) -> None:
    import torch

    expected = reference.answer(engine, index).answer
    dense = reference.dense_pass(engine, index)
    prepared = result.policy.prepare(dense)
    _, cache = dense.prefix()
    said = expected[:1]
    ends = end_tokens(reference.tokenizer)
    with (
        torch.inference_mode(),
        engine.applied(
            result.policy, sequences=(index,), calibration=result.calibration, prepared=prepared
        ) as reading,
    ):
        while len(said) < len(expected) and said[-1] not in ends:
            cache, token = _step(engine, dense.input_ids.new_tensor([[said[-1]]]), cache)
            said.append(token)
    result.reading.merge(reading)
    same = sum(a == b for a, b in zip(said[1:], expected[1:], strict=False)) / (len(expected) - 1)
    result.add(reference.text(said), reference.text(expected), len(expected) - 1, {"token_agreement": same})


def _step(engine: MaskedEngine, ids: Tensor, cache: Any) -> tuple[Any, int]:
    """Feed tokens after what the cache holds; return the cache and the greedy next token."""
    output = engine.anatomy.decoder(input_ids=ids, past_key_values=cache, use_cache=True)
    logits = engine.anatomy.head.logits(output.last_hidden_state[0, -1:])
    return output.past_key_values, int(logits.argmax())
