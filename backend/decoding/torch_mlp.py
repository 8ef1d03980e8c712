"""One layer's gated MLP for one token, in PyTorch alone: any device, any dtype.

Only the chosen weights are multiplied: column and row skips copy them out (``index_select``), which on a GPU
costs less than reading the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from backend.sparsity.policy import Activations, Context, Policy

if TYPE_CHECKING:
    from torch import Tensor

    from backend.models.anatomy import GatedMLP


class TorchGatheredMLP:
    """One layer's MLP under a policy, for a token on any device; weights are read where they lie.

    Args:
        mlp: The MLP, its memory laid out as the policy wants.
        policy: What is kept.
        context: The layer's context, state included.
    """

    def __init__(self, mlp: GatedMLP, policy: Policy, context: Context) -> None:
        self._mlp, self._policy, self._context = mlp, policy, context
        sites = policy.used_sites()
        self._asks_in, self._asks_mid = "mlp_in" in sites, "mlp_mid" in sites
        self.kept_in, self.kept_mid = mlp.hidden_size, mlp.neurons
        """Entries that the last token kept at each site."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return the MLP's output for one token. # [1, 1, d] → [1, 1, d]"""
        mlp = self._mlp
        mask = self._policy.mlp_in(x, self._context) if self._asks_in else None
        inputs = None if mask is None else mask[0, 0].nonzero()[:, 0]
        x_kept = x[0, 0] if inputs is None else x[0, 0, inputs]  # [k]
        masked = x if mask is None else x * mask
        needs = self._policy.needs if self._asks_mid else frozenset({"gate", "up"})

        gate = mlp.activation(self._product("gate", x_kept, inputs, None)) if "gate" in needs else None
        up = self._product("up", x_kept, inputs, None) if "up" in needs else None
        neurons = gate * up if gate is not None and up is not None else None
        chosen = self._choose(masked, gate, up, neurons)
        if neurons is None:
            gate = (
                mlp.activation(self._product("gate", x_kept, inputs, chosen))
                if gate is None
                else gate if chosen is None else gate[chosen]
            )  # fmt: skip
            up = (
                self._product("up", x_kept, inputs, chosen)
                if up is None
                else up if chosen is None else up[chosen]
            )  # fmt: skip
            kept = gate * up
        else:
            kept = neurons if chosen is None else neurons[chosen]
        columns = mlp.down_weight.t()  # [n, d]
        out = kept @ (columns if chosen is None else columns.index_select(0, chosen))
        if mlp.module.down_proj.bias is not None:
            out = out + mlp.module.down_proj.bias
        self.kept_in = mlp.hidden_size if inputs is None else len(inputs)
        self.kept_mid = mlp.neurons if chosen is None else len(chosen)
        return out[None, None]

    def _product(self, name: str, x: Tensor, inputs: Tensor | None, chosen: Tensor | None) -> Tensor:
        """Return chosen rows of gate or up, times the chosen inputs. # [k] → [rows]"""
        weight = self._mlp.gate_weight if name == "gate" else self._mlp.up_weight  # [n, d]
        offset = self._bias(name)
        if chosen is not None:
            weight = weight.index_select(0, chosen)
            offset = None if offset is None else offset[chosen]
        if inputs is not None:
            weight = weight.t().index_select(0, inputs).t()
        out = weight @ x
        return out if offset is None else out + offset

    def _bias(self, name: str) -> Tensor | None:
        mlp = self._mlp
        if mlp.fused:
            both: Tensor | None = mlp.module.gate_up_proj.bias
            half = slice(None, mlp.neurons) if name == "gate" else slice(mlp.neurons, None)
            return None if both is None else both[half]
        found: Tensor | None = getattr(mlp.module, f"{name}_proj").bias
        return found

    def _choose(
        self, x: Tensor, gate: Tensor | None, up: Tensor | None, neurons: Tensor | None
    ) -> Tensor | None:
        if not self._asks_mid:
            return None
        shown = {
            name: None if value is None or name not in wanted else value[None, None]
            for name, value, wanted in (
                ("gate", gate, self._policy.needs),
                ("up", up, self._policy.needs),
                ("neurons", neurons, {"neurons"}),
            )
        }
        mask = self._policy.mlp_mid(Activations(x=x, **shown), self._context)
        return None if mask is None else mask[0, 0].nonzero()[:, 0]
