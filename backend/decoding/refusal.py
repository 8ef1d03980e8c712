"""Which policies have a latency at all. Free of torch: forms and sweeps ask before anything is loaded."""

from __future__ import annotations

from typing import Literal

from backend.errors import UserError
from backend.sparsity import METHODS, Policy


def timed_methods() -> list[str]:
    """Return the methods that have a latency, at settings that any of them takes."""
    return [name for name, method in METHODS.items() if _has_latency(method)]


def refuse_unreal(policy: Policy) -> None:
    """Refuse a policy whose latency would be a fiction.

    Raises:
        UserError: It is an oracle, skips attention weights, for which there are no kernels, or needs passes
            of its own over what was decoded.
    """
    if not policy.realisable or not policy.label_free:
        raise UserError(
            f"{policy.title} is an oracle: it needs what it counts as skipped, so it has no latency. "
            "Choose a method that can be realised; `methods` says which."
        )
    if {"attn_in", "attn_out"} & set(policy.used_sites()):
        raise UserError(
            f"{policy.title} prunes attention weights, which no decoding kernel here skips, so its latency "
            "cannot be measured."
        )
    if getattr(policy.prepare, "__func__", None) is not Policy.prepare and not policy.prompt_alone:
        raise UserError(
            f"{policy.title} chooses by passes of its own over what was decoded, which the decode loop does "
            "not run, so its latency cannot be measured."
        )


def refuse_prefill(policy: Policy, prefill: Literal["dense", "sparse"]) -> None:
    """Refuse a sparse prompt where a policy makes its masks of a dense one.

    Raises:
        UserError: It does.
    """
    if prefill == "sparse" and policy.needs_prompt:
        raise UserError(f"{policy.title} makes its masks of a prompt that runs dense; set prefill to dense.")


def _has_latency(method: type[Policy]) -> bool:
    try:
        refuse_unreal(method() if method.sweep_setting is None else method.at_density(0.9))
    except UserError:
        return False
    return True
