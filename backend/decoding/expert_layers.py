"""The routed experts of a model: the modules whose fused 3-D parameters an expert store takes over.

transformers 5 keeps the experts of one layer as parameters with the expert first (``gate_up_proj`` [N, 2n, d]
and ``down_proj`` [N, d, n], other orders and biases as the module's flags say) and lets their forward be
replaced through ``ExpertsInterface``. Families that do not (Llama 4, DBRX, …) are refused by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from backend.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

PARTS = (
    "gate_up_proj", "gate_up_proj_bias", "up_proj", "up_proj_bias", "down_proj", "down_proj_bias",
)  # fmt: skip
"""Parameters of one layer's experts, in the order in which one expert's parts lie in a store."""
_FLAGS = ("has_gate", "has_bias", "is_transposed", "num_experts")
_K_NAMES = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_top_k", "top_k_experts")


@dataclass(frozen=True, eq=False)
class ExpertLayer:
    """One layer's routed experts.

    Attributes:
        index: Its place among the layers with experts, from 0.
        name: The module's name in the model.
        module: The module whose parameters they are.
        parts: Names of those parameters, in the order of a record.
    """

    index: int
    name: str
    module: Any
    parts: tuple[str, ...]

    @property
    def experts(self) -> int:
        """N: routed experts of the layer."""
        return int(self.parameter(self.parts[0]).shape[0])

    @property
    def dtype(self) -> torch.dtype:
        """The parameters' type."""
        return self.parameter(self.parts[0]).dtype

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Each part's shape in one expert: without the first axis."""
        return {part: tuple(self.parameter(part).shape[1:]) for part in self.parts}

    @property
    def weights(self) -> int:
        """Weights of one expert, biases included."""
        return sum(int(self.parameter(part)[0].numel()) for part in self.parts)

    @property
    def expert_bytes(self) -> int:
        """Bytes of one expert in the parameters' type."""
        return self.weights * self.parameter(self.parts[0]).element_size()

    def parameter(self, part: str) -> Tensor:
        """Return a part of all experts. # [N, …]"""
        found: Tensor = getattr(self.module, part)
        return found


def find_expert_layers(model: Any) -> tuple[ExpertLayer, ...]:
    """Return the layers with routed experts, in the model's order.

    Raises:
        UserError: There are none, they do not run through transformers' experts interface, their weights are
            not plain floating point, or they do not lie in this machine's memory.
    """
    family = type(model).__name__
    found: list[ExpertLayer] = []
    foreign = False
    for name, module in model.named_modules():
        if all(hasattr(module, flag) for flag in _FLAGS) and hasattr(module, "_apply_gate"):
            parts = tuple(part for part in PARTS if getattr(module, part, None) is not None)
            found.append(ExpertLayer(len(found), name, module, parts))
        elif name.rpartition(".")[2] == "experts":
            foreign = True
    if not found and foreign:
        raise UserError(
            f"The experts of {family} do not run through transformers' experts interface, so no store can "
            "stand in for them; use a model of the Mixtral, Qwen MoE, OLMoE, DeepSeek or Granite MoE kind."
        )
    if not found:
        raise UserError(f"{family} has no routed experts, so there is nothing to load from a store.")
    for layer in found:
        weight = layer.parameter(layer.parts[0])
        if not weight.is_floating_point() or weight.element_size() < 2:
            raise UserError(f"The experts of {family} are quantised; a store takes plain weights only.")
        if weight.device.type != "cpu":
            raise UserError(
                f"The experts of {family} lie on {weight.device.type}; a store loads them into this "
                "machine's memory: choose device cpu."
            )
    return tuple(found)


def experts_per_token(model: Any) -> int | None:
    """Return K as the model's configuration says it, None if it does not."""
    config = model.config.get_text_config()
    named = (getattr(config, name, None) for name in _K_NAMES)
    return next((int(value) for value in named if isinstance(value, int) and value > 0), None)


def check_slots(model: Any, slots: int) -> None:
    """Raise ``UserError`` if a cache of so many slots cannot hold what a token uses in a layer."""
    needed = experts_per_token(model)
    if needed is not None and slots < needed:
        raise UserError(
            f"{slots} slots cannot hold the {needed} experts that a token of this model uses in a "
            f"layer; give it at least {needed}."
        )
