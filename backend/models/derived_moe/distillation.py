"""The short distillation: the MoE learns to give the dense model's next-token distribution.

The loss is ``KL(dense ‖ MoE)`` at every position of the training windows, and nothing else: no true next
token enters, so the MoE cannot come to know the training text's domain better than the dense model does.

Matrix products run in bfloat16; the residual stream, the routers, the softmaxes and everything that is
trained stay float32.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from backend.models.derived_moe.precision import half_precision, mixed
from backend.models.derived_moe.settings import Training
from backend.models.wheel import Progress, silent

LOG = "log.jsonl"
CHECKPOINT = "checkpoint.safetensors"
_CHECKPOINT_SECONDS = 60.0
_VALIDATION_STEPS = 60
_HEAD_TOKENS = 512  # positions whose logits are held at once: 100 MB in float32
_WARM_UP_STEPS = 5
_DECAY_SHARE = 2 / 3  # of the steps, at the end
_CLIP = 1.0


def distil(
    dense: Any,
    student: Any,
    training: Tensor,
    validation: Tensor,
    settings: Training,
    folder: Path,
    device: str = "cpu",
    progress: Progress = silent,
) -> Any:
    """Train a masked model in place and return it, on the CPU.

    A checkpoint is written every minute; called again with the same folder, it goes on from the last one.

    Args:
        dense: The dense model, the teacher.
        student: From :func:`backend.models.derived_moe.masked.masked_model`, with its starting values set.
        training: Windows in the order they are used, from the start again when they end. # [n, W]
        validation: Windows that are watched. # [v, W]
        settings: Steps, rates, batch.
        folder: Where checkpoint and log are written.
        device: Where it computes: "cpu", "cuda" or "mps".
        progress: Called with messages and shares.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for model in (dense, student):
        half_precision(model.to(device))
        # in bfloat16 on a CPU eager is three times faster than sdpa at 256 tokens
        model.set_attn_implementation("eager" if device == "cpu" else "sdpa")
    optimiser = _optimiser(student, settings)
    first, seconds = _resume(student, optimiser, folder)
    head = dense.lm_head.weight.to(torch.bfloat16)
    sequences = training.reshape(-1, settings.sequence).to(device)
    validation = validation.to(device)
    batch = settings.batch_tokens // settings.sequence
    began = saved = time.perf_counter()
    began -= seconds
    for step in range(first, settings.steps):
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * _share_of_rate(step, settings.steps)
        at = torch.arange(step * batch, (step + 1) * batch, device=device) % len(sequences)
        loss = _step(dense, student, sequences[at].long(), head, optimiser)
        entry: dict[str, Any] = {"step": step + 1, "kl": round(loss, 5)}
        done = step + 1 == settings.steps
        if (step + 1) % _VALIDATION_STEPS == 0 or done:
            entry["validation_kl"] = round(mean_kl(dense, student, validation, head), 5)
        entry["tokens"] = (step + 1) * batch * settings.sequence
        entry["seconds"] = round(time.perf_counter() - began, 1)
        with (folder / LOG).open("a") as log:
            log.write(json.dumps(entry) + "\n")
        if done or time.perf_counter() - saved > _CHECKPOINT_SECONDS:
            _save(student, optimiser, step + 1, entry["seconds"], folder)
            saved = time.perf_counter()
        progress(f"Distilling: step {step + 1}, KL {loss:.3f}", (step + 1) / settings.steps)
    return student.cpu()


def mean_kl(dense: Any, student: Any, windows: Tensor, head: Tensor) -> float:
    """Return the mean KL(dense ‖ MoE) of windows, in nats a token."""
    was = student.training
    student.eval()
    total = 0.0
    with torch.no_grad(), mixed(windows.device.type):
        for window in windows:
            teacher, own = (
                model.model(input_ids=window[None].long(), use_cache=False) for model in (dense, student)
            )
            total += kl_and_gradient(own.last_hidden_state[0], teacher.last_hidden_state[0], head)[0]
    student.train(was)
    return total / len(windows)


def kl_and_gradient(hidden: Tensor, teacher: Tensor, head: Tensor) -> tuple[float, Tensor]:
    """Return the mean KL of the two models' next tokens and its gradient on the student's states.

    The head is frozen, so the gradient is written down: ``(p_student − p_dense) W / T``. Positions are taken
    in chunks, since the logits of 2,048 positions would take 400 MB a copy.

    Args:
        hidden: The student's final hidden states. # [T, d]
        teacher: The dense model's. # [T, d]
        head: W. # [V, d]
    """
    gradient = torch.empty_like(hidden, dtype=torch.float32)
    total = hidden.new_zeros((), dtype=torch.float32)
    with torch.no_grad(), torch.autocast(hidden.device.type, enabled=False):
        for start in range(0, len(hidden), _HEAD_TOKENS):
            rows = slice(start, start + _HEAD_TOKENS)
            own = _log_softmax(hidden[rows], head)
            wanted = _log_softmax(teacher[rows], head)
            probabilities = wanted.exp()
            total += (probabilities * (wanted - own)).sum()
            gradient[rows] = (own.exp_().sub_(probabilities).to(head.dtype) @ head).float()
    return float(total) / len(hidden), gradient / len(hidden)


def _log_softmax(hidden: Tensor, head: Tensor) -> Tensor:
    return (hidden.to(head.dtype) @ head.T).float().log_softmax(dim=-1)


def _step(dense: Any, student: Any, ids: Tensor, head: Tensor, optimiser: Any) -> float:
    student.train()
    with torch.no_grad(), mixed(ids.device.type):
        teacher = dense.model(input_ids=ids, use_cache=False).last_hidden_state.flatten(0, 1)
    with mixed(ids.device.type):
        hidden = student.model(input_ids=ids, use_cache=False).last_hidden_state.flatten(0, 1)
    loss, gradient = kl_and_gradient(hidden.detach(), teacher, head)
    optimiser.zero_grad(set_to_none=True)
    hidden.backward(gradient.to(hidden.dtype))
    torch.nn.utils.clip_grad_norm_([p for g in optimiser.param_groups for p in g["params"]], _CLIP)
    optimiser.step()
    return loss


def _optimiser(student: Any, settings: Training) -> torch.optim.Optimizer:
    """Adam, with a rate for each kind of parameter."""
    groups: dict[float, list[Any]] = {}
    for name, parameter in student.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(_peak_rate(name, settings), []).append(parameter)
    return torch.optim.Adam(
        [{"params": parameters, "lr": rate, "peak": rate} for rate, parameters in groups.items()],
        betas=(0.9, 0.95),
    )


def _peak_rate(name: str, settings: Training) -> float:
    if ".lora." in name:
        return settings.correction_rate
    rates = {"router": settings.router_rate, "scale": settings.scale_rate}
    return rates.get(name.rsplit(".", 1)[-1], settings.gain_rate)


def _share_of_rate(step: int, steps: int) -> float:
    """Return the share of the peak rate: a short warm-up, a plateau, a linear decay at the end.

    With a plateau a run can be made longer as long as its decay has not begun.
    """
    left = (steps - step) / max(1.0, _DECAY_SHARE * steps)
    return min(1.0, (step + 1) / _WARM_UP_STEPS, left)


def _save(student: Any, optimiser: Any, step: int, seconds: float, folder: Path) -> None:
    tensors = {f"model.{name}": tensor for name, tensor in _trainable(student).items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": torch.as_tensor(value) for name, value in state.items()}
    part = folder / f"{CHECKPOINT}.part"
    save_file(tensors, part, metadata={"step": str(step), "seconds": str(seconds)})
    part.replace(folder / CHECKPOINT)


def _resume(student: Any, optimiser: Any, folder: Path) -> tuple[int, float]:
    """Put the last checkpoint in place, if there is one, and return its step and the seconds until then."""
    from safetensors import safe_open

    path = folder / CHECKPOINT
    if not path.is_file():
        (folder / LOG).unlink(missing_ok=True)
        return 0, 0.0
    with safe_open(path, framework="pt") as file:
        said = file.metadata()
    tensors = load_file(path)
    state: dict[int, dict[str, Tensor]] = {}
    with torch.no_grad():
        for name, parameter in _trainable(student).items():
            parameter.copy_(tensors[f"model.{name}"])
    for name, tensor in tensors.items():
        if name.startswith("optimiser."):
            _, index, key = name.split(".")
            state.setdefault(int(index), {})[key] = tensor
    optimiser.load_state_dict(optimiser.state_dict() | {"state": state})
    step = int(said["step"])
    lines = (folder / LOG).read_text().splitlines()[:step]  # what was logged after the checkpoint comes again
    (folder / LOG).write_text("".join(f"{line}\n" for line in lines))
    return step, float(said["seconds"])


def _trainable(student: Any) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in student.named_parameters() if p.requires_grad}
