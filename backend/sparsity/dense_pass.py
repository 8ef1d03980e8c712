"""The dense pass of a sequence: what the units of the dense model hold, and their gradients.

Shown to every policy that looks at the dense model before its masked run; what one has asked for is kept
for the next, so that a grid of metrics and ratios shares one forward and one backward pass a sequence.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from backend.seeds import mixed_seed
from backend.sparsity.own_token import own_token_attention

if TYPE_CHECKING:
    from torch import Tensor

    from backend.models.anatomy import Anatomy

Label = Literal["own", "next", "second", "random"]
"""Whose log-probability is attributed: the dense model's own greedy token, the true next token, or, as
controls, the dense model's second choice or a token drawn at random."""
Labeller: TypeAlias = "Callable[[Tensor, slice], Tensor]"
CHUNK = 128
"""Positions whose logits are made at once."""


@dataclass(frozen=True)
class Units:
    """One value for each unit entry, per layer, of the positions of a dense pass; fp32.

    Attributes:
        neurons: MLP neurons: what enters the down projection. # [B, T', n]
        heads: What enters the attention's output projection. # [B, T', H·d_h]
    """

    neurons: dict[int, Tensor]
    heads: dict[int, Tensor]

    @property
    def nbytes(self) -> int:
        """Bytes that the values take."""
        return sum(v.numel() * v.element_size() for part in (self.neurons, self.heads) for v in part.values())


@dataclass
class DensePass:
    """A sequence as the dense model sees it.

    Attributes:
        model: A Hugging Face causal language model.
        anatomy: Its parts.
        input_ids: One sequence a row. # [B, T]
        prompt: Its first tokens, which run dense; units are given of the T' = T − prompt positions after.
    """

    model: Any
    anatomy: Anatomy
    input_ids: Tensor
    prompt: int = 0
    _activations: Units | None = field(default=None, repr=False)
    _gradients: dict[tuple[Any, ...], Units] = field(default_factory=dict, repr=False)
    _prefix: tuple[Tensor, Any] | None = field(default=None, repr=False)

    @property
    def nbytes(self) -> int:
        """Bytes kept for the next who asks."""
        kept = [self._activations, *self._gradients.values()]
        return sum(units.nbytes for units in kept if units is not None)

    def of_prompt(self) -> DensePass:
        """Return the dense pass of the prompt alone."""
        return DensePass(self.model, self.anatomy, self.input_ids[:, : self.prompt])

    def prefix(self) -> tuple[Tensor, Any]:
        """Return the prompt's final hidden states # [B, prompt, d] and a fresh copy of its KV cache."""
        if self._prefix is None:
            import torch

            with torch.inference_mode():
                output = self.anatomy.decoder(input_ids=self.input_ids[:, : self.prompt], use_cache=True)
            self._prefix = output.last_hidden_state, output.past_key_values
        hidden, cache = self._prefix
        return hidden, copy.deepcopy(cache)

    def activations(self) -> Units:
        """Return what the units hold."""
        if self._activations is None:
            import torch

            with torch.no_grad():
                tape = self._run()
            self._activations = self._units(dict(zip(tape.keys, tape.inputs, strict=True)))
        return self._activations

    def gradients(self, label: Label, seed: int = 0) -> Units:
        """Return ``∂ log p(label_t) / ∂x_t`` of every position t: of its own prediction alone.

        Args:
            label: Which token's log-probability.
            seed: Seed of random labels.
        """
        return self._differentiated((label, seed if label == "random" else 0), [(label, seed)])[0]

    def sampled_gradients(self, samples: int, seed: int) -> list[Units]:
        """Return the gradients for labels drawn from the dense model's own distribution.

        Args:
            samples: How many draws a position.
            seed: Seed of the draws.
        """
        asked: list[tuple[Any, ...]] = [("sample", mixed_seed(seed, draw)) for draw in range(samples)]
        return self._differentiated(None, asked)

    def kept(self, key: tuple[Any, ...], make: Callable[[], Units]) -> Units:
        """Return gradients that were made last under this key, else make them; only the last are kept."""
        if key not in self._gradients:
            self._gradients = {key: make()}
        return self._gradients[key]

    def _differentiated(self, key: tuple[Any, ...] | None, asked: list[tuple[Any, ...]]) -> list[Units]:
        import torch

        if key is not None and key in self._gradients:
            return [self._gradients[key]]
        with torch.enable_grad():
            tape = self._run()
        if self._activations is None:
            self._activations = self._units(dict(zip(tape.keys, tape.inputs, strict=True)))
        found: list[Units] = []
        for kind, seed in asked:
            slope = self.slope(tape.hidden.detach(), self._labellers(kind, seed))
            values = torch.autograd.grad(
                tape.hidden, tape.inputs, grad_outputs=slope, retain_graph=len(found) + 1 < len(asked)
            )
            found.append(self._units(dict(zip(tape.keys, values, strict=True))))
        if key is not None:
            self._gradients = {key: found[0]}  # one label at a time: what is kept is bounded
        return found

    def _run(self) -> _Tape:
        """Run the sequence with own-token attention, the units' values held as leaves or in the graph."""
        tape = _Tape()
        handles = []
        places = [("neurons", layer, mlp.module.down_proj) for layer, mlp in self.anatomy.mlps.items()]
        places += [("heads", layer, attention.out) for layer, attention in self.anatomy.attentions.items()]
        for kind, layer, module in places:
            handles.append(module.register_forward_pre_hook(tape.hook((kind, layer))))
        try:
            with own_token_attention(self.model):
                output = self.anatomy.decoder(input_ids=self.input_ids, use_cache=False)
        finally:
            for handle in handles:
                handle.remove()
        tape.hidden = output.last_hidden_state
        return tape

    def _units(self, values: dict[tuple[str, int], Tensor]) -> Units:
        kept = {key: value.detach()[:, self.prompt :].float().clone() for key, value in values.items()}
        return Units(
            {layer: value for (kind, layer), value in kept.items() if kind == "neurons"},
            {layer: value for (kind, layer), value in kept.items() if kind == "heads"},
        )

    def labels(self, label: Label, seed: int = 0) -> Tensor:
        """Return whose log-probability is attributed at each position after the prompt. # [B, T']"""
        import torch

        with torch.inference_mode():
            hidden = self.anatomy.decoder(input_ids=self.input_ids, use_cache=False).last_hidden_state
            whole = slice(self.prompt, hidden.shape[1])
            labellers = self._labellers(label, seed)
            found = [
                labeller(self.anatomy.head.logits(row[whole]), whole)
                for row, labeller in zip(hidden, labellers, strict=True)
            ]
        return torch.stack(found)

    def _labellers(self, kind: str, seed: int) -> list[Labeller]:
        return [_labeller(kind, seed, ids) for ids in self.input_ids]

    def slope(self, hidden: Tensor, labellers: Sequence[Labeller]) -> Tensor:
        """Return ``∂ log p(label_t) / ∂h_t``, chunk by chunk; zero in the prompt.

        Args:
            hidden: The final hidden states. # [B, T, d]
            labellers: One a row: logits # [C, V] of some positions, and which → the tokens attributed. # [C]

        Returns:
            # [B, T, d]
        """
        import torch

        slope = torch.zeros_like(hidden)
        for row, labeller in enumerate(labellers):
            for start in range(self.prompt, hidden.shape[1], CHUNK):
                part = slice(start, min(start + CHUNK, hidden.shape[1]))
                with torch.enable_grad():
                    states = hidden[row, part].clone().requires_grad_()
                    logits = self.anatomy.head.logits(states)  # [C, V]
                    labels = labeller(logits.detach(), part)
                    total = logits.log_softmax(-1).gather(-1, labels[:, None]).sum()
                slope[row, part] = torch.autograd.grad(total, states)[0]
        return slope


class _Tape:
    """The values of the units in one run, in the order they were computed."""

    def __init__(self) -> None:
        self.keys: list[tuple[str, int]] = []
        self.inputs: list[Tensor] = []
        self.hidden: Any = None

    def hook(self, key: tuple[str, int]) -> Callable[[Any, tuple[Any, ...]], tuple[Any, ...]]:
        def keep(_module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
            import torch

            value = args[0]
            if torch.is_grad_enabled() and not value.requires_grad:
                value = value.detach().requires_grad_()
            self.keys.append(key)
            self.inputs.append(value)
            return (value, *args[1:])

        return keep


def _labeller(kind: str, seed: int, ids: Tensor) -> Labeller:
    """Return a function from logits # [C, V] of some positions to the tokens that are attributed. # [C]"""
    import torch

    generator = torch.Generator().manual_seed(mixed_seed(seed, *ids.tolist()))

    def label(logits: Tensor, part: slice) -> Tensor:
        top = logits.argmax(-1)
        if kind == "own":
            return top
        if kind == "next":
            following = ids[part.start + 1 : part.stop + 1]
            return torch.cat([following, top[len(following) :]])  # after the last token none is known
        if kind == "second":
            return logits.topk(2, dim=-1).indices[:, 1]
        if kind == "sample":
            shares = logits.double().softmax(-1).cpu()
            return torch.multinomial(shares, 1, generator=generator)[:, 0].to(logits.device)
        drawn = torch.randint(logits.shape[-1] - 1, (len(logits),), generator=generator).to(logits.device)
        return drawn + (drawn >= top).long()  # any token but the dense model's choice

    return label
