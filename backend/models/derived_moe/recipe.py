"""The recipe: the stages that derive the MoE. Each writes its output and is skipped when it is there.

    text        tokenised windows of the training text            text.safetensors
    recording   what every dense MLP is given                     recorded/layer-NN.safetensors
    clusters    order of the neurons: shared, expert 0, expert 1  clusters.safetensors
    routers     routers and scales by regression                  routers.safetensors
    distilled   routers, scales and corrections by distillation   distilled/, distilled.safetensors

The last one goes on from its last checkpoint. Another choice of settings is another working folder, or an
error.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.errors import UserError
from backend.models.derived_moe.settings import MoEShape, Training
from backend.models.wheel import Progress, silent

if TYPE_CHECKING:
    from torch import Tensor

STAGES = ("text", "recording", "clusters", "routers", "distilled")


@dataclass(frozen=True)
class Recipe:
    """One derivation.

    Attributes:
        base: Name of the dense model.
        base_sha256: sha256 of its weights.
        dense: The dense model, a Llama in float32.
        tokenizer: Its tokenizer.
        data_root: Where the training text lies.
        work: Working folder of the stages' outputs.
        shape: Sizes of the experts.
        training: Text and training.
        device: Where the distillation computes; all else runs on the CPU.
        progress: Called with messages and shares.
    """

    base: str
    base_sha256: str
    dense: Any
    tokenizer: Any
    data_root: Path | None
    work: Path
    shape: MoEShape
    training: Training
    device: str = "cpu"
    progress: Progress = silent

    def run(self) -> dict[str, Tensor]:
        """Run what is not yet there, and return the artefact's tensors.

        Raises:
            UserError: The training text is missing, the dense model is no Llama whose neurons divide, or the
                working folder belongs to other settings.
        """
        self.begin()
        for stage in STAGES:
            self.progress(f"Stage {stage}", None)
            getattr(self, f"_{stage}")
        tensors: dict[str, Tensor] = self._distilled
        return tensors

    def begin(self) -> None:
        """Check the dense model and claim the working folder."""
        self.check()
        self.claim()

    def check(self) -> None:
        """Refuse a dense model that cannot be cut, before hours are spent."""
        from backend.models.derived_moe.assembly import require_llama

        require_llama(self.dense)
        try:
            self.shape.expert_size(self.dense.config.intermediate_size)
        except ValueError as error:
            raise UserError(f"{self.base} cannot be cut so: {error}.") from error

    def claim(self) -> None:
        """Write the settings into the working folder, or refuse one that was begun with others.

        A longer or shorter distillation may go on in the same folder: its steps are not compared.
        """
        self.work.mkdir(parents=True, exist_ok=True)
        path = self.work / "recipe.json"
        asked = {
            "base": self.base,
            "base_sha256": self.base_sha256,
            "shape": self.shape.model_dump(),
            "training": self.training.model_dump(exclude={"steps"}),
        }
        if path.is_file() and json.loads(path.read_text()) != asked:
            raise UserError(
                f"{self.work} was begun with other settings or another dense model (recipe.json there says "
                "which); name another working folder, or remove this one."
            )
        path.write_text(json.dumps(asked, indent=1))

    @property
    def validation(self) -> Tensor:
        """Windows held out of all training. # [v, W]"""
        return self._text["validation"]

    @property
    def recorded(self) -> Path:
        """Folder of what the dense MLPs were given."""
        return self._recording

    @property
    def log(self) -> Path:
        """The distillation's log: JSON lines with step, tokens, seconds and KL."""
        return self.work / "distilled" / "log.jsonl"

    @property
    def text_sha256(self) -> dict[str, str]:
        """sha256 of each file of the training text, as it was read."""
        found: dict[str, str] = json.loads((self.work / "text.json").read_text())
        return found

    @cached_property
    def _text(self) -> dict[str, Tensor]:
        from backend.models.derived_moe.text import read_training_text

        def make() -> dict[str, Tensor]:
            text = read_training_text(self.data_root, self.tokenizer, self.training)
            (self.work / "text.json").write_text(json.dumps(text.sha256, indent=1))
            return {name: getattr(text, name).clone() for name in ("calibration", "training", "validation")}

        return self._kept("text", make)

    @cached_property
    def _recording(self) -> Path:
        from backend.models.derived_moe.recording import layer_file, record_mlp_inputs

        folder = self.work / "recorded"
        if not layer_file(folder, self.dense.config.num_hidden_layers - 1).is_file():
            record_mlp_inputs(self.dense, self._text["calibration"], folder, self.progress)
        return folder

    @cached_property
    def _clusters(self) -> dict[str, Tensor]:
        import torch

        from backend.models.derived_moe.clustering import energies, group_neurons
        from backend.models.derived_moe.recording import recorded_inputs

        def order(layer: int, mlp: Any) -> Tensor:
            inputs = recorded_inputs(self._recording, layer)
            generator = torch.Generator().manual_seed(self.training.seed)
            inputs = inputs[torch.randperm(len(inputs), generator=generator)[: self.training.cluster_tokens]]
            with torch.no_grad():
                gated = mlp.act_fn(mlp.gate_proj(inputs)) * mlp.up_proj(inputs)
                energy = energies(gated, mlp.down_proj.weight.norm(dim=0))
            return torch.from_numpy(group_neurons(energy, self.shape, self.training.seed))

        return self._kept("clusters", lambda: {"neurons": torch.stack(self._each_layer("Clustering", order))})

    @cached_property
    def _routers(self) -> dict[str, Tensor]:
        import torch

        from backend.models.derived_moe.recording import recorded_inputs
        from backend.models.derived_moe.router import regress_router

        def fit(layer: int, mlp: Any) -> dict[str, Tensor]:
            inputs = recorded_inputs(self._recording, layer)[: self.training.router_tokens]
            order = self._clusters["neurons"][layer]
            return regress_router(mlp, order, inputs, self.shape, self.training.router_spread)

        def make() -> dict[str, Tensor]:
            fitted = self._each_layer("Fitting routers", fit)
            return {name: torch.stack([each[name] for each in fitted]) for name in fitted[0]}

        return self._kept("routers", make)

    @cached_property
    def _distilled(self) -> dict[str, Tensor]:
        import torch

        from backend.models.derived_moe.distillation import distil
        from backend.models.derived_moe.masked import masked_model, set_trained, trained_tensors

        def make() -> dict[str, Tensor]:
            torch.manual_seed(self.training.seed)
            rank, boundary = self.training.lora_rank, self.training.boundary
            student = masked_model(self.dense, self._clusters["neurons"], self.shape, rank, boundary)
            set_trained(student, self._routers)
            folder = self.work / "distilled"
            teacher = copy.deepcopy(self.dense)  # it is rounded to bfloat16 there
            distil(
                teacher,
                student,
                self._text["training"],
                self._text["validation"],
                self.training,
                folder,
                self.device,
                self.progress,
            )
            return self._clusters | trained_tensors(student)

        return self._kept(f"distilled-{self.training.steps}", make)

    def _each_layer(self, what: str, work: Any) -> list[Any]:
        layers = self.dense.model.layers
        found = []
        for index, layer in enumerate(layers):
            found.append(work(index, layer.mlp))
            self.progress(what, (index + 1) / len(layers))
        return found

    def _kept(self, name: str, make: Any) -> dict[str, Tensor]:
        """Return the stage's tensors from its file, made first if it is absent."""
        from safetensors.torch import load_file, save_file

        path = self.work / f"{name}.safetensors"
        if not path.is_file():
            made: Mapping[str, Tensor] = make()
            part = path.with_suffix(".part")
            save_file({key: tensor.contiguous() for key, tensor in made.items()}, part)
            part.replace(path)
        tensors: dict[str, Tensor] = load_file(path)
        return tensors
