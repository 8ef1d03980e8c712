"""The masked engine: runs any policy on any decoder, dense arithmetic, all tokens at once.

It walks each layer's sites, asks the policy which entries to keep, multiplies by the masks and accounts
for what was read. The whole sequence is masked, or what follows a prompt that runs dense.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from backend.sparsity.accounting import Reading
from backend.sparsity.dense_pass import DensePass
from backend.sparsity.policy import Activations, Context, Observer, Policy, Site

if TYPE_CHECKING:
    from torch import Tensor, nn

    from backend.models.anatomy import Anatomy, Attention, GatedMLP


Watch: TypeAlias = "Callable[[int, Site, Tensor, Tensor], None]"
"""Told the layer, the site, the mask and the values that it masks. # both [B, T, N]"""


class MaskedEngine:
    """Applies policies to one model; between two uses the model is exactly as it was.

    Args:
        model: A Hugging Face causal language model, in eval mode.
        anatomy: Its parts, from :func:`backend.models.anatomy.find_anatomy`.
    """

    def __init__(self, model: Any, anatomy: Anatomy) -> None:
        self.model = model
        self.anatomy = anatomy

    def hidden_states(
        self,
        policy: Policy,
        input_ids: Tensor,
        *,
        sequences: Sequence[int] = (0,),
        calibration: Any = None,
        watch: Watch | None = None,
        prompt: int = 0,
        dense: DensePass | None = None,
    ) -> tuple[Tensor, Reading]:
        """Run whole sequences under a policy.

        Args:
            policy: The policy.
            input_ids: One sequence a row. # [B, T]
            sequences: Running numbers of the rows, for policies with state or seeds. # B
            calibration: What :meth:`calibrate` returned for this policy.
            watch: Shown each MLP mask as it is applied (the residency trace).
            prompt: First tokens of the sequences that run dense, and are not accounted for.
            dense: The dense pass of these sequences and this prompt, if it is to be shared with other runs.

        Returns:
            The final hidden states (after the last norm) # [B, T, d], and what was read.
        """
        dense = dense or DensePass(self.model, self.anatomy, input_ids, prompt)
        prepared = policy.prepare(dense)
        import torch

        before: list[Tensor] = []
        after: dict[str, Any] = {"use_cache": False}
        if prompt:
            hidden, cache = dense.prefix()
            before, after = [hidden], {"past_key_values": cache, "use_cache": True}
        with (
            torch.inference_mode(),
            self.applied(
                policy, sequences=sequences, calibration=calibration, prepared=prepared, watch=watch
            ) as reading,
        ):
            output = self.anatomy.decoder(input_ids=input_ids[:, prompt:], **after)
        return torch.cat([*before, output.last_hidden_state], dim=1), reading

    def calibrate(self, policy: Policy, batches: Iterable[Tensor]) -> Any:
        """Let the policy's observer watch the dense model on calibration text, and return what it fits.

        Args:
            policy: The policy.
            batches: Token ids of calibration sequences. # each [B, T]

        Returns:
            What ``context.calibration`` shall hold; None for a policy without calibration.
        """
        observer = policy.observer()
        if observer is None:
            return None
        import torch

        with torch.inference_mode(), ExitStack() as stack:
            for mlp in self.anatomy.mlps.values():
                stack.enter_context(replaced_forward(mlp.module, _observed(mlp, observer)))
            for input_ids in batches:
                self.anatomy.decoder(input_ids=input_ids, use_cache=False)
        return observer.fit()

    @contextmanager
    def applied(
        self,
        policy: Policy,
        *,
        sequences: Sequence[int] = (0,),
        calibration: Any = None,
        prepared: Any = None,
        watch: Watch | None = None,
    ) -> Iterator[Reading]:
        """Apply a policy to the model for the time of a ``with`` block: new sequences, any number of calls.

        State is made at the start, so token-by-token decoding inside one block continues its sequences.

        Args:
            policy: The policy.
            sequences: Running numbers of the batch rows.
            calibration: What :meth:`calibrate` returned.
            prepared: What the policy's ``prepare`` returned.
            watch: Shown each MLP mask as it is applied (the residency trace).

        Yields:
            The accounting, growing with each call of the model.
        """
        reading = Reading(self.anatomy, policy)
        contexts = self.contexts(policy, sequences, calibration, prepared)
        with self.masked(policy, contexts, reading, watch):
            yield reading
        for layer in self.anatomy.mlps:
            for tally in policy.tallies(contexts[layer]):
                reading.add_tally(tally)

    def contexts(
        self, policy: Policy, sequences: Sequence[int] = (0,), calibration: Any = None, prepared: Any = None
    ) -> dict[int, Context]:
        """Return each layer's context, with fresh state; arguments as for :meth:`applied`."""
        return {
            layer: Context(
                layer=layer,
                layers=self.anatomy.layers,
                mlp=self.anatomy.mlps.get(layer),
                heads=None if (at := self.anatomy.attentions.get(layer)) is None else at.heads,
                state=policy.start(layer, sequences),
                calibration=calibration,
                prepared=prepared,
            )
            for layer in range(self.anatomy.layers)
        }

    @contextmanager
    def masked(
        self, policy: Policy, contexts: dict[int, Context], reading: Reading, watch: Watch | None = None
    ) -> Iterator[None]:
        """Mask the model for the time of a ``with`` block, going on from the contexts' state.

        Args:
            policy: The policy.
            contexts: Each layer's context, from :meth:`contexts`.
            reading: The accounting to add to.
            watch: Shown each MLP mask as it is applied.
        """
        sites = policy.sites()
        with ExitStack() as stack:
            for layer, mlp in self.anatomy.mlps.items():
                forward = _masked(mlp, policy, contexts[layer], reading, watch)
                stack.enter_context(replaced_forward(mlp.module, forward))
            for layer, attention in self.anatomy.attentions.items():
                if "attn_in" in sites:
                    stack.enter_context(_masked_input(attention, "attn_in", policy, contexts[layer], reading))
                if "attn_out" in sites:
                    stack.enter_context(
                        _masked_input(attention, "attn_out", policy, contexts[layer], reading)
                    )
            yield


def _masked(
    mlp: GatedMLP, policy: Policy, context: Context, reading: Reading, watch: Watch | None
) -> Callable[[Tensor], Tensor]:
    """Return the MLP's forward under a policy: ``W_d (m_mid ⊙ act(W_g (m_in ⊙ x)) ⊙ W_u (m_in ⊙ x))``."""

    def forward(x: Tensor) -> Tensor:
        mask_in = policy.mlp_in(x, context)
        if mask_in is not None:
            if watch is not None:
                watch(context.layer, "mlp_in", mask_in, x)
            x = x * mask_in
        gate, up = mlp.project(x)
        gate = mlp.activation(gate)
        neurons = gate * up
        mask_mid = policy.mlp_mid(_asked_for(policy, x, gate, up, neurons), context)
        if mask_mid is not None:
            if watch is not None:
                watch(context.layer, "mlp_mid", mask_mid, neurons)
            neurons = neurons * mask_mid
        reading.add_mlp(context.layer, mask_in, mask_mid, x.shape[:-1].numel())
        return mlp.down(neurons)

    return forward


def _asked_for(policy: Policy, x: Tensor, gate: Tensor, up: Tensor, neurons: Tensor) -> Activations:
    """Show the policy what it asked for and no more, so that its accounting cannot be wrong."""
    return Activations(
        x=x,
        gate=gate if "gate" in policy.needs else None,
        up=up if "up" in policy.needs else None,
        neurons=neurons if {"gate", "up"} <= policy.needs else None,
    )


def _observed(mlp: GatedMLP, observer: Observer) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        gate, up = mlp.project(x)
        gate = mlp.activation(gate)
        neurons = gate * up
        observer.observe(mlp, Activations(x=x, gate=gate, up=up, neurons=neurons))
        return mlp.down(neurons)

    return forward


@contextmanager
def replaced_forward(module: nn.Module, forward: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Compute a module by another function for the time of a ``with`` block."""
    module.forward = forward
    try:
        yield
    finally:
        del module.forward


@contextmanager
def _masked_input(
    attention: Attention,
    site: Literal["attn_in", "attn_out"],
    policy: Policy,
    context: Context,
    reading: Reading,
) -> Iterator[None]:
    """Mask what enters the attention (q, k and v share it) or its output projection."""
    ask = policy.attn_in if site == "attn_in" else policy.attn_out

    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        x = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        mask = ask(x, context)
        reading.add_attention(context.layer, site, mask)
        if mask is None:
            return args, kwargs
        if "hidden_states" in kwargs:
            return args, {**kwargs, "hidden_states": x * mask}
        return (x * mask, *args[1:]), kwargs

    module = attention.module if site == "attn_in" else attention.out
    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
