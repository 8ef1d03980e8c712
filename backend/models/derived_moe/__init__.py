"""The derived mixture of experts: a dense Llama's own neurons, cut into experts, with a trained router.

Importing this package imports no torch; its functions do. Loading needs :mod:`artefacts` and :mod:`assembly`;
the other modules derive the artefact: :mod:`recipe` names the stages in their order.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from backend.models.derived_moe.artefacts import read_manifest, read_parts
from backend.models.derived_moe.settings import MoEShape


def load_derived(dense: Any, folder: Path) -> Any:
    """Return the MoE of ``folder``, a ``Qwen2MoeForCausalLM``, assembled from the loaded dense model.

    Args:
        dense: The dense model, loaded; attention, embedding and head become the MoE's own.
        folder: Of ``moe.json`` and ``parts.safetensors``.

    Raises:
        UserError: The artefact is absent or damaged, or does not fit the dense model.
    """
    from backend.models.derived_moe.assembly import assemble

    manifest = read_manifest(folder)
    return assemble(dense, MoEShape.parse(manifest.shape, str(folder)), read_parts(folder, manifest))
