"""Which policies have a latency at all. Free of torch: forms and sweeps ask before anything is loaded."""

from __future__ import annotations

from backend.errors import UserError
from backend.sparsity.policy import Policy


def refuse_unreal(policy: Policy) -> None:
    """Refuse a policy whose latency would be a fiction.

    Raises:
        UserError: It is an oracle, or skips attention weights, for which there are no kernels.
    """
    if not policy.realisable or not policy.label_free:
        raise UserError(
            f"{policy.title} is an oracle: it needs what it counts as skipped, so it has no latency. "
            "Choose a method that can be realised; `methods` says which."
        )
    if {"attn_in", "attn_out"} & set(policy.sites()):
        raise UserError(
            f"{policy.title} prunes attention weights, which no decoding kernel here skips, so its latency "
            "cannot be measured."
        )
