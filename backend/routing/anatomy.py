"""Finds the routers of any Hugging Face mixture of experts, and checks that they can be taken over.

A mixture layer owns ``experts``, a module with fused 3-D parameters, and beside it a ``gate`` or ``router``
that returns ``(logits [T, N], weights [T, K], indices [T, K])``, T = batch · sequence. It is found by that
structure, then *checked* on a probe: each router fires once, the formulas of its ranks and weights are
found, and the model with its weights made again by them is bit for bit what it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backend.errors import UserError
from backend.models.anatomy import Head, find_head, has_experts
from backend.routing.weighting import (
    Selection,
    SparseMixer,
    Weighting,
    find_selection,
    find_weighting,
    selection_bias,
)

if TYPE_CHECKING:
    from torch import Tensor

ROUTER_NAMES = ("gate", "router")
PROBE_TOKENS = 32
UNFIT = {
    "llama4": "Llama 4",
    "llama4_text": "Llama 4",
    "dbrx": "DBRX",
}
"""Families whose routers do not return what is re-routed here, by model type."""


@dataclass(frozen=True)
class MoELayer:
    """One decoder layer's mixture: N routed experts, K of them a token.

    Attributes:
        layer: Index of its decoder layer.
        router: The module that ranks experts.
        experts: The module that owns their fused weights.
        size: N.
        k: K.
        weighting: How chosen experts are weighed.
        selection: How experts are ranked.
    """

    layer: int
    router: Any
    experts: Any
    size: int
    k: int
    weighting: Weighting | SparseMixer
    selection: Selection

    @property
    def expert_weights(self) -> int:
        """Weights of one expert, biases included."""
        total: int = sum(each.numel() for each in self.experts.parameters())
        return total // self.size

    @property
    def expert_bytes(self) -> int:
        """Bytes of one expert as it runs."""
        total: int = sum(each.numel() * each.element_size() for each in self.experts.parameters())
        return total // self.size


@dataclass(frozen=True)
class MoEAnatomy:
    """What the routing engine needs to know of a model.

    Attributes:
        model: The causal language model.
        decoder: The module that maps token ids to final hidden states.
        head: The head.
        layers: Layer index → mixture, for the layers that have one.
    """

    model: Any
    decoder: Any
    head: Head
    layers: dict[int, MoELayer]

    @property
    def k(self) -> int:
        """K of the first mixture layer."""
        return next(iter(self.layers.values())).k

    @property
    def dense_bytes(self) -> int:
        """Bytes that every token reads: all weights but routed experts and an embedding that is no head."""
        weights = {id(each): each.numel() * each.element_size() for each in self.model.parameters()}
        embedding = self.model.get_input_embeddings().weight
        head = self.model.get_output_embeddings()
        if head is not None and head.weight is not embedding:
            weights.pop(id(embedding), None)
        routed: int = sum(layer.size * layer.expert_bytes for layer in self.layers.values())
        return int(sum(weights.values())) - routed


@dataclass(frozen=True)
class _Found:
    """A router by its structure, before its formulas are known."""

    router: Any
    experts: Any


@dataclass(frozen=True)
class _Said:
    """What a router returned on the probe, and what it was given."""

    arguments: tuple[Any, ...]
    output: Any


def find_moe(model: Any) -> MoEAnatomy:
    """Find the mixtures of a decoder and check that its experts can be chosen for it.

    Args:
        model: A Hugging Face causal language model, in eval mode.

    Raises:
        UserError: It has no experts, is of a kind whose routing cannot be taken over (named), or its weights
            cannot be made again exactly.
    """
    _refuse_by_name(model)
    family = type(model).__name__
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else None
    found = _routers(family, getattr(decoder, "layers", None) or ())
    ids = _probe(model)
    hidden, said = _watched(decoder, found, ids)
    layers = {index: _layer(family, index, found[index], said[index]) for index in found}
    _check_identity(family, decoder, layers, ids, hidden)
    return MoEAnatomy(model, decoder, find_head(model), layers)


def expert_module(module: Any) -> bool:
    """Tell whether a module owns fused experts: 3-D parameters of its own."""
    return any(each.dim() == 3 for each in module.parameters(recurse=False))


def _refuse_by_name(model: Any) -> None:
    family = type(model).__name__
    config = getattr(model, "config", None)
    types = {getattr(each, "model_type", "") for each in (config, getattr(config, "text_config", None))}
    if unfit := types & set(UNFIT):
        raise UserError(
            f"{UNFIT[unfit.pop()]} cannot be re-routed: its routers do not return logits, weights and "
            "experts; use Mixtral, Qwen, OLMoE, DeepSeek, Granite, gpt-oss or another of their kind."
        )
    if hasattr(model, "_orig_mod") or any(
        getattr(module, "_compiled_call_impl", None) is not None for module in model.modules()
    ):
        raise UserError(
            f"{family} is compiled, which bypasses the routing hook; load it without torch.compile."
        )
    if getattr(model, "use_kernels", False):
        raise UserError(
            f"{family} was loaded with use_kernels=True, whose kernels bypass the routing hook; load it "
            "without."
        )
    quantised = getattr(config, "quantization_config", None)
    method = (
        quantised.get("quant_method")
        if isinstance(quantised, dict)
        else getattr(quantised, "quant_method", "")
    )
    if "mxfp4" in str(method).lower() or any("Mxfp4" in type(module).__name__ for module in model.modules()):
        raise UserError(
            f"{family} is stored in MXFP4, whose kernels route on their own; load it dequantised (bfloat16)."
        )


def _routers(family: str, layers: Any) -> dict[int, _Found]:
    found = {}
    for index, layer in enumerate(layers):
        for block in layer.modules():
            experts = getattr(block, "experts", None)
            router = next((getattr(block, name) for name in ROUTER_NAMES if hasattr(block, name)), None)
            if experts is not None and router is not None and expert_module(experts):
                found[index] = _Found(router, experts)
    if not found:
        unlike = any(has_experts(layer) for layer in layers)
        raise UserError(
            f"{family} has experts, but no router beside fused expert weights, so it cannot be re-routed."
            if unlike
            else f"{family} is a dense model: it has no experts to route to. Take a mixture of experts "
            "(smollm2-moe, OLMoE, Mixtral, …) or a mask policy."
        )
    return found


def _probe(model: Any) -> Tensor:
    import torch

    device = model.get_input_embeddings().weight.device
    vocabulary = int(model.get_input_embeddings().weight.shape[0])
    return (torch.arange(1, PROBE_TOKENS + 1, device=device) * 7 % vocabulary)[None]


def _watched(decoder: Any, found: dict[int, _Found], ids: Tensor) -> tuple[Tensor, dict[int, _Said]]:
    """Run the probe; return the final hidden states, and what each router said."""
    import torch

    said: dict[int, list[_Said]] = {index: [] for index in found}

    def watch(index: int) -> Any:
        return lambda _module, arguments, output: said[index].append(_Said(arguments, output))

    handles = [each.router.register_forward_hook(watch(index)) for index, each in found.items()]
    try:
        with torch.inference_mode():
            hidden = decoder(input_ids=ids, use_cache=False).last_hidden_state
    finally:
        for handle in handles:
            handle.remove()
    for index, calls in said.items():
        if len(calls) != 1:
            raise UserError(
                f"The router of layer {index} ran {len(calls)} times in one pass, not once; something "
                "bypasses it, so its experts cannot be chosen here."
            )
    return hidden, {index: calls[0] for index, calls in said.items()}


def _layer(family: str, index: int, found: _Found, said: _Said) -> MoELayer:
    import torch

    output = said.output
    if not (
        isinstance(output, tuple)
        and len(output) == 3
        and all(isinstance(each, torch.Tensor) and each.dim() == 2 for each in output)
        and output[1].shape == output[2].shape
    ):
        raise UserError(
            f"The router of {family} does not return logits, weights and experts: it cannot be re-routed."
        )
    logits, weights, chosen = output
    with torch.inference_mode():
        weighting = find_weighting(found.router, logits, weights, chosen)
        if weighting is None:
            raise UserError(
                f"How {family} weighs the experts it chose (layer {index}) is not known here, so re-routed "
                "tokens would be weighed wrongly; please report the model's name."
            )
        size = int(logits.shape[1])
        bias = selection_bias(found.router, said.arguments, size)
        selection = find_selection(found.router, bias, logits, chosen, weighting.score)
    if selection is None:
        raise UserError(
            f"How {family} ranks its experts (layer {index}) is not known here, so the next best ones cannot "
            "be told; please report the model's name."
        )
    return MoELayer(index, found.router, found.experts, size, int(chosen.shape[1]), weighting, selection)


def _check_identity(
    family: str, decoder: Any, layers: dict[int, MoELayer], ids: Tensor, hidden: Tensor
) -> None:
    """Weigh the model's own experts by the formulas found, and compare the whole pass bit for bit."""
    import torch

    from backend.routing.hooks import hooked

    def again(layer: MoELayer, _arguments: Any, logits: Tensor, weights: Tensor, chosen: Tensor) -> Any:
        return logits, layer.weighting.weights(logits, chosen).to(weights.dtype), chosen

    with torch.inference_mode(), hooked(layers, again) as fired:
        got = decoder(input_ids=ids, use_cache=False).last_hidden_state
    if not torch.equal(got, hidden) or any(count != 1 for count in fired.values()):
        raise UserError(
            f"{family} computes something else when its own routing is handed back to it, so a re-routed "
            "run would not be comparable; please report the model's name."
        )
