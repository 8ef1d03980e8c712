"""The lean step: one token through a Llama-style decoder, almost nothing but its weights.

Every layer is two kernel calls beside the policy's own; keys and values lie in arrays made once. It is used
only if its logits equal the model's own (:func:`agrees`).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numba
import numpy as np

from backend.decoding.gathered_mlp import GatheredMLP
from backend.decoding.kernels.attention import attention_step, rms_norm
from backend.decoding.kernels.linear import Floats, rows
from backend.decoding.lean_weights import LeanWeights
from backend.decoding.parts import Parts

if TYPE_CHECKING:
    from torch import Tensor

RELATIVE_TOLERANCE = 2e-4
"""How far logits may be from the model's own, as a share of their largest magnitude (float32)."""


class LeanStep:
    """Decodes one sequence token by token.

    Args:
        weights: The model's weights, shared with other steps.
        mlps: One a layer, each with its policy's state.
        room: Tokens that the sequence may have, prompt included.
    """

    name = "lean"

    def __init__(self, weights: LeanWeights, mlps: dict[int, GatheredMLP], room: int) -> None:
        self.mlps = mlps
        self.parts = Parts(0, 0, 0, 0)
        self._weights = weights
        d, width = weights.norm.shape[0], weights.width
        first = weights.attentions[0]
        heads, groups = first.q.scales.shape[0] // width, first.k.scales.shape[0] // width
        layers = len(weights.attentions)
        self._keys = np.zeros((layers, groups, room, width), np.float32)
        self._values = np.zeros((layers, groups, room, width), np.float32)
        self._cosines, self._sines = _rotary(weights.anatomy.decoder, room)
        self._h, self._x, self._n, self._out = (np.empty(d, np.float32) for _ in range(4))
        self._q, self._mixed = (np.empty(heads * width, np.float32) for _ in range(2))
        self._kv = np.empty(2 * groups * width, np.float32)
        self._scores = np.empty((heads, room), np.float32)
        self._logits = np.empty(weights.head.scales.shape[0], np.float32)
        self._threads = numba.get_num_threads()
        self.position = 0

    def take(self, cache: Any, tokens: int) -> None:
        """Go on from a prompt that the model itself has read.

        Args:
            cache: transformers' cache after the prompt.
            tokens: The prompt's length.
        """
        for layer, (keys, values) in enumerate(zip(self._keys, self._values, strict=True)):
            keys[:, :tokens] = cache.layers[layer].keys[0].float().numpy()
            values[:, :tokens] = cache.layers[layer].values[0].float().numpy()
        self.position = tokens

    def __call__(self, token: int) -> Tensor:
        """Feed one token; return the logits of the next, a copy. # [V]"""
        import torch

        begun = time.perf_counter()
        weights, h, x, threads, position = self._weights, self._h, self._x, self._threads, self.position
        first_seen = 0 if weights.window is None else max(0, position + 1 - weights.window)
        cosines, sines = self._cosines[position], self._sines[position]
        h[:] = weights.embedding[token]
        attention = mlp = 0.0
        for layer, w in enumerate(weights.attentions):
            start = time.perf_counter()
            bq, bk, bv, bo = w.biases
            attention_step(
                h, w.norm, weights.epsilon,
                w.q.values, w.q.scales, bq, w.k.values, w.k.scales, bk,
                w.v.values, w.v.scales, bv, w.o.values, w.o.scales, bo,
                w.q_norm, w.k_norm, cosines, sines,
                self._keys[layer], self._values[layer], position, first_seen, w.scale,
                self._n, self._q, self._kv, self._scores, self._mixed, self._out, threads,
            )  # fmt: skip
            rms_norm(h, w.mlp_norm, weights.epsilon, x)
            middle = time.perf_counter()
            h += self.mlps[layer](x)
            end = time.perf_counter()
            attention += middle - start
            mlp += end - middle
        start = time.perf_counter()
        rms_norm(h, weights.norm, weights.epsilon, x)
        rows(weights.head.values, weights.head.scales, x, self._logits, threads)
        logits = weights.anatomy.head.finish(torch.from_numpy(self._logits).clone())
        self.position += 1
        end = time.perf_counter()
        self.parts = Parts(mlp, attention, end - start, end - begun)
        return logits


def _rotary(decoder: Any, room: int) -> tuple[Floats, Floats]:
    """Return the rotary embedding's cosines and sines of every position. # [room, d_h] each"""
    import torch

    with torch.inference_mode():
        cosines, sines = decoder.rotary_emb(torch.zeros(1, 1, 1), torch.arange(room)[None])
    return cosines[0].float().contiguous().numpy(), sines[0].float().contiguous().numpy()
