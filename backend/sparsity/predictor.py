"""A trained predictor of the neurons that matter: Deja Vu's, on the MLP's own input (arXiv 2310.17157)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backend.seeds import mixed_seed
from backend.settings import setting
from backend.sparsity.calibrated import Calibrated
from backend.sparsity.neuron_pruning import NeuronPruning
from backend.sparsity.policy import Activations, Context, Observer, method
from backend.sparsity.selection import kept_count, top_k_mask

if TYPE_CHECKING:
    from torch import Tensor

    from backend.models.anatomy import GatedMLP

BATCH = 128
"""Tokens of one training step."""
MARGIN = 0.005
"""Added to the weight of negatives, w = mean(y) + 0.005, as the authors do."""


@method
class TrainedPredictor(Calibrated, NeuronPruning):
    """Keep the neurons that a low-rank predictor ``B A x`` of the MLP's input ranks highest.

    Trained per layer to tell the ρ·n neurons with the largest ``|a_i|·‖W_d[:,i]‖`` from the others: binary
    cross-entropy in which negatives weigh w = mean(y) + 0.005. What the predictor itself reads, r·(d + n)
    weights a layer, is in every density.
    """

    name = "predictor"
    title = "Trained predictor"
    summary = "Predicts from the MLP's input which neurons matter, and reads those alone."
    equation = r"m = T_k(B A x),\quad A \in R^{r \times d},\quad B \in R^{n \times r}"
    density_formula = r"\rho + r(d + n)/(3dn)"
    paper = "Liu et al., arXiv 2310.17157"
    limits = (
        "Trained for one share kept, on one text. What it reads itself comes on top of ρ. The authors' "
        "predictor reads the layer's input, to run beside the attention; here nothing runs beside, so it "
        "reads the MLP's input, which tells more. It predicts neurons, not heads."
    )

    calibration_tokens: int = setting(
        16_384, "Tokens of the calibration text that it is trained on.", unit="tokens", ge=64, le=1_000_000
    )
    rank: int = setting(64, "Rank of the predictor.", symbol="r", ge=1, le=4096)
    epochs: int = setting(4, "Passes over the calibration tokens.", ge=1, le=1000)
    learning_rate: float = setting(2e-3, "Adam's step size.", gt=0, le=1)
    seed: int = setting(0, "Seed of initial weights and of the order of tokens.", ge=0)

    def own_weights(self, hidden_size: int, neurons: int) -> int:
        """Return r·(d + n)."""
        return self.rank * (hidden_size + neurons)

    def expected_density(self) -> float | None:
        """Return None: what the predictor reads itself depends on the model's sizes."""
        return None

    def score(self, activations: Activations, context: Context) -> Tensor:
        """Score neurons by the predictor. # [B, T, n]"""
        x = activations.x
        first, second = (self.fitted(context, name).to(x) for name in ("first", "second"))
        scores: Tensor = x @ first.T @ second.T
        return scores

    def observer(self) -> Observer:
        """Return an observer that collects inputs and labels, and trains on them."""
        return PredictorObserver(self)


class PredictorObserver:
    """Collects each layer's inputs and which neurons matter, then trains one predictor a layer.

    Inputs are kept in half precision and labels as bits: for d = 576 and n = 1536, 1.3 kB a token and layer.
    """

    def __init__(self, policy: TrainedPredictor) -> None:
        self.policy = policy
        self._inputs: dict[int, list[Tensor]] = {}
        self._labels: dict[int, list[Any]] = {}
        self._neurons: dict[int, int] = {}

    def observe(self, mlp: GatedMLP, activations: Activations) -> None:
        """Take note of a sequence's inputs, and of the neurons whose contribution is largest."""
        import numpy as np

        assert activations.neurons is not None
        self._neurons[mlp.layer] = mlp.neurons
        size = activations.neurons.float().abs() * mlp.down_column_norms
        mask = top_k_mask(size, kept_count(self.policy.keep, mlp.neurons))
        self._inputs.setdefault(mlp.layer, []).append(activations.x.flatten(0, -2).half().cpu())
        self._labels.setdefault(mlp.layer, []).append(np.packbits(mask.flatten(0, -2).cpu().numpy(), axis=1))

    def examples(self, layer: int, neurons: int) -> tuple[Tensor, Tensor]:
        """Return a layer's inputs # [N, d] and which neurons matter # [N, n], as floats."""
        import numpy as np
        import torch

        labels = np.unpackbits(np.concatenate(self._labels[layer]), axis=1, count=neurons)
        return torch.cat(self._inputs[layer]).float(), torch.from_numpy(labels).float()

    def fit(self) -> dict[str, Tensor]:
        """Return "layer.first" (A) # [r, d] and "layer.second" (B) # [n, r] of every layer."""
        found: dict[str, Tensor] = {}
        for layer, neurons in self._neurons.items():
            x, y = self.examples(layer, neurons)
            del self._inputs[layer], self._labels[layer]
            seed = mixed_seed(self.policy.seed, layer)
            found[f"{layer}.first"], found[f"{layer}.second"] = train(x, y, self.policy, seed)
        return found


def train(x: Tensor, y: Tensor, policy: TrainedPredictor, seed: int) -> tuple[Tensor, Tensor]:
    """Return a layer's predictor: A # [r, d] and B # [n, r].

    Args:
        x: Inputs. # [N, d]
        y: 1 for neurons that matter, else 0. # [N, n]
        policy: Rank, passes and step size.
        seed: Decides initial weights and the order of tokens.
    """
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits

    draws = torch.Generator().manual_seed(seed)
    # inference_mode(False): observers run inside the engine's, whose tensors take no part in training.
    with torch.inference_mode(False), torch.enable_grad():
        scale = x.square().mean().sqrt()
        x, y = x / scale, y.clone()
        first = torch.randn(policy.rank, x.shape[1], generator=draws) / x.shape[1] ** 0.5
        second = torch.randn(y.shape[1], policy.rank, generator=draws) / policy.rank**0.5
        weights = [first.requires_grad_(), second.requires_grad_()]
        optimiser = torch.optim.Adam(weights, lr=policy.learning_rate)
        negative = float(y.mean()) + MARGIN
        for _ in range(policy.epochs):
            for rows in torch.randperm(len(x), generator=draws).split(BATCH):
                wanted = y[rows]
                loss = binary_cross_entropy_with_logits(
                    x[rows] @ first.T @ second.T, wanted, wanted * (1 - negative) + negative
                )
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
    return first.detach() / scale, second.detach()
