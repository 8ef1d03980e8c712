"""What a routing policy is: frozen settings, a version, and the experts of each token.

It is handed what one layer's router said of some tokens (:class:`~backend.routing.routes.Routes`) and
answers with experts, by rank. Only the choice is its own: weights come from the router's original logits.
Importing a policy never imports torch, so that pages can make forms from its settings.

A policy with **state** per layer and sequence returns it from ``start``; one that is **fitted** on a
calibration text (:mod:`backend.routing.calibrated`) finds what was fitted in ``context.calibration``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from backend.errors import UserError
from backend.methods import Method, add_method
from backend.registry import Registry
from backend.routing.routes import Routes
from backend.settings import setting

Choice = NDArray[np.int32]
"""Experts by rank, ``NONE`` behind them where fewer than K are used. # [T, K]"""


@dataclass
class RoutingContext:
    """Where a policy is asked: one layer of one sequence.

    Attributes:
        layer: Index of the decoder layer.
        experts: N.
        k: K.
        sequence: The sequence's running number, for seeds.
        state: What ``start`` returned.
        calibration: What was fitted, by layer and quantity; None without.
        tokens: Tokens of the sequence before those that are asked for.
    """

    layer: int
    experts: int
    k: int
    sequence: int
    state: Any = None
    calibration: Any = None
    tokens: int = 0


class RoutingPolicy(Method):
    """A way to choose each token's experts in a mixture."""

    kind = "routing"
    may_use_fewer: ClassVar[bool] = False
    """A token may use fewer experts than the model's K."""

    @property
    def reroutes_prompt(self) -> bool:
        """Whether tokens of the prompt are routed by the policy too, or as the model does."""
        return True

    def fit(self, experts: int, k: int) -> list[str]:
        """Check the settings against a model's N and K; return what to keep in mind, in sentences.

        Raises:
            UserError: They do not fit.
        """
        return []

    def start(self, context: RoutingContext) -> Any:
        """Return this layer's state for a new sequence."""
        return None

    def choose(self, routes: Routes, context: RoutingContext) -> Choice:
        """Choose the next tokens' experts."""
        raise NotImplementedError

    def follow(self, routes: Routes, context: RoutingContext) -> None:
        """Take note of tokens that were routed as the model does (a prompt)."""


class Rerouting(RoutingPolicy):
    """A policy that changes the model's own choice."""

    prompt: Literal["rerouted", "original"] = setting(
        "rerouted",
        "Whether the tokens of a prompt are re-routed too, or run as the model routes them. A task that "
        "only reads a prompt sees no effect with 'original'.",
    )

    @property
    def reroutes_prompt(self) -> bool:
        """Whether tokens of the prompt are routed by the policy too."""
        return self.prompt == "rerouted"


ROUTINGS: Registry[type[RoutingPolicy]] = Registry("routing policy")
"""Every routing policy there is, by name."""


def routing(policy: type[RoutingPolicy]) -> type[RoutingPolicy]:
    """Class decorator: register a routing policy under its ``name``."""
    return add_method(ROUTINGS, policy)


def make_routing(name: str, settings: dict[str, Any]) -> RoutingPolicy:
    """Return the routing policy called ``name`` with ``settings``; wrong ones raise ``UserError``."""
    return ROUTINGS[name].parse(settings, name)


def refuse_more_than(k: int, asked: int, what: str) -> None:
    """Raise ``UserError`` if a setting names more ranks or experts than the K that a token uses."""
    if asked > k:
        raise UserError(f"{what} {asked} is more than the {k} experts that a token of this model uses.")
