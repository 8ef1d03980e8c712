"""Records what each MLP of the dense model is given, on the calibration windows: one file a layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.models.wheel import Progress, silent

if TYPE_CHECKING:
    from torch import Tensor


def record_mlp_inputs(model: Any, windows: Tensor, folder: Path, progress: Progress = silent) -> None:
    """Run the dense model and write ``layer-NN.safetensors`` with every MLP's input, in bfloat16.

    The first token of a window is left out: its hidden state is a sink of its own, hundreds of times larger
    than any other, and no expert should be shaped by it.

    Args:
        model: The dense Llama, in float32.
        windows: Token ids. # [c, W]
        folder: Where the files go; made if absent.
        progress: Called with messages and shares.
    """
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    layers = model.get_decoder().layers
    seen: list[list[Tensor]] = [[] for _ in layers]

    def listen(index: int) -> Any:
        def hook(_module: Any, inputs: tuple[Tensor, ...]) -> None:
            seen[index].append(inputs[0][:, 1:].flatten(0, 1).to(torch.bfloat16))

        return hook

    hooks = [layer.mlp.register_forward_pre_hook(listen(i)) for i, layer in enumerate(layers)]
    try:
        with torch.inference_mode():
            for done, window in enumerate(windows):
                model.get_decoder()(input_ids=window[None].long(), use_cache=False)
                progress("Recording the MLPs' inputs", (done + 1) / len(windows))
    finally:
        for hook in hooks:
            hook.remove()
    for index, pieces in enumerate(seen):
        save_file({"inputs": torch.cat(pieces)}, layer_file(folder, index))


def layer_file(folder: Path, layer: int) -> Path:
    """Return the file of one layer's recorded inputs."""
    return folder / f"layer-{layer:02d}.safetensors"


def recorded_inputs(folder: Path, layer: int) -> Tensor:
    """Return one layer's recorded MLP inputs in float32. # [T, d]"""
    from safetensors.torch import load_file

    inputs: Tensor = load_file(layer_file(folder, layer))["inputs"].float()
    return inputs
