"""Which cut is worth training: every candidate shape under an oracle that sees which experts will be loudest.

No router and no training: the figures compare shapes, they are no model's. The text is the validation part
of the training text.
"""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from backend.errors import UserError
from backend.models.derived_moe.clustering import captured_share, energies, group_neurons, oracle_choice
from backend.models.derived_moe.precision import half_precision, mixed
from backend.models.derived_moe.recording import recorded_inputs
from backend.models.derived_moe.settings import MoEShape
from backend.models.wheel import Progress, silent

if TYPE_CHECKING:
    from torch import Tensor

CANDIDATES: tuple[tuple[MoEShape, bool], ...] = (
    (MoEShape(shared=768, experts=64, top_k=16), True),
    (MoEShape(shared=768, experts=64, top_k=16), False),
    (MoEShape(shared=768, experts=32, top_k=8), True),
    (MoEShape(shared=768, experts=128, top_k=32), True),
    (MoEShape(shared=864, experts=84, top_k=12), True),
    (MoEShape(shared=640, experts=64, top_k=16), True),
    (MoEShape(shared=768, experts=64, top_k=8), True),
)
"""Shapes, and whether the routed neurons are clustered or cut as they lie."""


class OracleMoE(nn.Module):
    """A dense MLP of which a token keeps the shared neurons and the K loudest experts: with hindsight."""

    def __init__(self, mlp: Any, order: Tensor, shape: MoEShape) -> None:
        super().__init__()
        self.mlp, self.order, self.shape = mlp, order, shape
        self.norms = mlp.down_proj.weight.float().norm(dim=0)

    def forward(self, x: Tensor) -> Tensor:
        """Return the kept neurons' output. # [..., d] → [..., d]"""
        gated = self.mlp.act_fn(self.mlp.gate_proj(x)) * self.mlp.up_proj(x)  # [..., n]
        energy = energies(gated.float(), self.norms).flatten(0, -2)
        chosen = oracle_choice(energy[:, self.order], self.shape)  # [T, N]
        size = self.shape.expert_size(energy.shape[1])
        kept = torch.ones_like(energy)
        kept[:, self.order[self.shape.shared :]] = chosen.repeat_interleave(size, dim=1)
        output: Tensor = self.mlp.down_proj(gated * kept.view_as(gated).to(gated.dtype))
        return output


def search(
    dense: Any, recorded: Path, windows: Tensor, file: Path, tokens: int, progress: Progress = silent
) -> list[dict[str, Any]]:
    """Probe every candidate that ``file`` does not hold yet and return all records.

    Args:
        dense: The dense model.
        recorded: Folder of the recorded MLP inputs.
        windows: Validation windows. # [v, W]
        file: JSON lines, appended to.
        tokens: Recorded tokens that the clustering looks at.
        progress: Called with messages and shares.

    Raises:
        UserError: The candidates' sizes do not fit the model.
    """
    neurons = dense.config.intermediate_size
    if any((neurons - shape.shared) % shape.experts for shape, _ in CANDIDATES):
        raise UserError(
            f"The shapes that are compared are for 1,536 neurons a layer, and this model has {neurons}; "
            "derive one with settings of your own instead."
        )
    records = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    reference = copy.deepcopy(dense)
    half_precision(reference)
    dense_nll = _nll(reference, windows)
    for index, (shape, clustered) in enumerate(CANDIDATES):
        if index < len(records):
            continue
        probed, captured = _oracle_model(dense, recorded, shape, clustered, tokens)
        half_precision(probed)
        nll = _nll(probed, windows)
        records.append(
            {
                **shape.model_dump(),
                "expert_size": shape.expert_size(neurons),
                "clustered": clustered,
                "share_on": shape.share_on(neurons),
                "captured_energy": round(captured, 4),
                "dense_perplexity": round(math.exp(dense_nll), 3),
                "oracle_perplexity": round(math.exp(nll), 3),
                "ratio": round(math.exp(nll - dense_nll), 4),
                "tokens": windows.numel(),
            }
        )
        with file.open("a") as lines:
            lines.write(json.dumps(records[-1]) + "\n")
        progress("Probing shapes", (index + 1) / len(CANDIDATES))
    return records


def _oracle_model(
    dense: Any, recorded: Path, shape: MoEShape, clustered: bool, tokens: int
) -> tuple[Any, float]:
    """Return the model with oracles in place of its MLPs, and the mean captured share of the energy."""
    model = copy.deepcopy(dense)
    captured = []
    for index, layer in enumerate(model.model.layers):
        inputs = recorded_inputs(recorded, index)[:tokens]
        with torch.no_grad():
            gated = layer.mlp.act_fn(layer.mlp.gate_proj(inputs)) * layer.mlp.up_proj(inputs)
            energy = energies(gated, layer.mlp.down_proj.weight.norm(dim=0))
        order = torch.from_numpy(group_neurons(energy, shape, clustered=clustered))
        captured.append(captured_share(energy[:, order], shape))
        layer.mlp = OracleMoE(layer.mlp, order, shape)
    return model, sum(captured) / len(captured)


def _nll(model: Any, windows: Tensor) -> float:
    """Return the mean NLL of the windows' tokens after the first, in nats."""
    total = 0.0
    with torch.inference_mode(), mixed():
        for window in windows.long():
            logits = model(input_ids=window[None], use_cache=False).logits[0, :-1].float()
            total += float(functional.cross_entropy(logits, window[1:]))
    return total / len(windows)
