"""The routing engine: runs any routing policy on any mixture of experts, all tokens of a sequence at once.

With a cache a layer, one teacher-forced pass whose hooks walk the tokens in order chooses what decoding
them one by one would. (It would not for a cache that layers share: a token's later layers come first.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from backend.errors import UserError
from backend.models.anatomy import Head
from backend.routing.calibrated import CalibratedRouting
from backend.routing.hooks import rerouted
from backend.routing.policy import Choice, RoutingContext, RoutingPolicy
from backend.routing.reading import LayerReading, RoutingReading

if TYPE_CHECKING:
    from torch import Tensor

    from backend.routing.anatomy import MoEAnatomy, MoELayer
    from backend.routing.routes import Routes

Calibration: TypeAlias = "dict[str, Tensor]"
"""What a policy was fitted to, by layer and quantity ("3.sensitivity")."""


class RoutedEngine:
    """Applies routing policies to one model; between two uses the model is exactly as it was.

    Args:
        anatomy: The model's parts, from :func:`backend.routing.anatomy.find_moe`.
    """

    def __init__(self, anatomy: MoEAnatomy) -> None:
        self.anatomy = anatomy

    @property
    def model(self) -> Any:
        """The causal language model."""
        return self.anatomy.model

    @property
    def head(self) -> Head:
        """The head."""
        return self.anatomy.head

    def fit(self, policy: RoutingPolicy) -> list[str]:
        """Check a policy's settings against every layer; return what to keep in mind, each sentence once.

        Raises:
            UserError: They do not fit the model.
        """
        layers = self.anatomy.layers.values()
        return list(dict.fromkeys(note for layer in layers for note in policy.fit(layer.size, layer.k)))

    def calibrate(self, policy: RoutingPolicy, batches: Iterable[Tensor]) -> Calibration | None:
        """Let a policy fit what it needs on calibration text, under the model's original routing.

        Args:
            policy: The policy.
            batches: Token ids of calibration sequences. # each [1, T]

        Returns:
            What ``context.calibration`` shall hold; None for a policy without calibration.

        Raises:
            UserError: The policy's settings do not fit the model.
        """
        self.fit(policy)
        if not isinstance(policy, CalibratedRouting) or policy.fitted_on is None:
            return None
        return policy.calibrate(self.anatomy, batches)

    def hidden_states(
        self,
        policy: RoutingPolicy,
        input_ids: Tensor,
        *,
        sequence: int = 0,
        prompt: int = 0,
        calibration: Calibration | None = None,
    ) -> tuple[Tensor, RoutingReading]:
        """Run a whole sequence under a policy.

        Args:
            policy: The policy.
            input_ids: # [1, T]
            sequence: The sequence's running number, for seeds.
            prompt: First tokens that are the prompt: a policy may leave their routing as it is.
            calibration: What :meth:`calibrate` returned for this policy.

        Returns:
            The final hidden states (after the last norm) # [1, T, d], and the experts used.
        """
        import torch

        with (
            torch.inference_mode(),
            self.applied(policy, sequence=sequence, prompt=prompt, calibration=calibration) as reading,
        ):
            output = self.anatomy.decoder(input_ids=input_ids, use_cache=False)
        return output.last_hidden_state, reading

    @contextmanager
    def applied(
        self,
        policy: RoutingPolicy,
        *,
        sequence: int = 0,
        prompt: int = 0,
        calibration: Calibration | None = None,
    ) -> Iterator[RoutingReading]:
        """Route the model by a policy for the time of a ``with`` block: one new sequence, any calls.

        State is made at the start, so token-by-token decoding inside one block continues its sequence.
        Arguments as for :meth:`hidden_states`.

        Yields:
            The experts used, growing with each call of the model.

        Raises:
            UserError: The policy's settings do not fit the model; a batch of several sequences.
        """
        begun = self.sequence(policy, sequence=sequence, prompt=prompt, calibration=calibration)
        with begun.routed() as reading:
            yield reading

    def sequence(
        self,
        policy: RoutingPolicy,
        *,
        sequence: int = 0,
        prompt: int = 0,
        calibration: Calibration | None = None,
    ) -> RoutedSequence:
        """Return a new sequence, whose routing can be put on and off: several may take turns on one model.

        Arguments as for :meth:`hidden_states`.

        Raises:
            UserError: The policy's settings do not fit the model.
        """
        self.fit(policy)
        return RoutedSequence(self.anatomy, policy, sequence, prompt, calibration)


class RoutedSequence:
    """One sequence under a policy: its state a layer and what it has used so far.

    Args:
        anatomy: The model's parts.
        policy: The policy.
        sequence: The sequence's running number, for seeds.
        prompt: First tokens that are the prompt.
        calibration: What the policy was calibrated to, by layer.

    Attributes:
        reading: The experts used, growing with each call of the model.
        last: What the last call used, by layer.
    """

    def __init__(
        self,
        anatomy: MoEAnatomy,
        policy: RoutingPolicy,
        sequence: int,
        prompt: int,
        calibration: Calibration | None,
    ) -> None:
        self.reading = RoutingReading(prompt)
        self.last: dict[int, LayerReading] = {}
        self._anatomy, self._policy = anatomy, policy
        self._as_it_is = 0 if policy.reroutes_prompt else prompt
        self._contexts = {}
        for index, layer in anatomy.layers.items():
            context = RoutingContext(index, layer.size, layer.k, sequence, calibration=calibration)
            context.state = policy.start(context)
            self._contexts[index] = context

    @contextmanager
    def routed(self) -> Iterator[RoutingReading]:
        """Route the model for the time of a ``with`` block; the next block goes on.

        Yields:
            The experts used, growing with each call of the model.

        Raises:
            UserError: A batch of several sequences.
        """
        handle = self._anatomy.decoder.register_forward_pre_hook(_one_sequence, with_kwargs=True)
        try:
            with rerouted(self._anatomy.layers, self._choose):
                yield self.reading
        finally:
            handle.remove()

    def _choose(self, layer: MoELayer, routes: Routes) -> Choice:
        context = self._contexts[layer.layer]
        chosen = _chosen(self._policy, routes, context, self._as_it_is)
        context.tokens += routes.tokens
        self.last[layer.layer] = self.reading.add(layer.layer, routes, chosen)
        return chosen


def _chosen(policy: RoutingPolicy, routes: Routes, context: RoutingContext, as_it_is: int) -> Choice:
    """Ask the policy, except for tokens of a prompt that keeps the model's own routing."""
    own = min(max(0, as_it_is - context.tokens), routes.tokens)
    if own == 0:
        return policy.choose(routes, context)
    before, after = routes.slice(0, own), routes.slice(own, routes.tokens)
    policy.follow(before, context)
    if after.tokens == 0:
        return before.original
    context.tokens += own
    chosen = policy.choose(after, context)
    context.tokens -= own
    return np.concatenate([before.original, chosen])


def _one_sequence(_module: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
    """Refuse a batch: its sequences would share what belongs to one, and padding would be routed too."""
    given = [named.get("input_ids"), named.get("inputs_embeds"), *arguments[:1]]
    batch = next((each.shape[0] for each in given if each is not None), 1)
    if batch != 1:
        raise UserError(f"A routing policy runs one sequence at a time, not a batch of {batch}.")
