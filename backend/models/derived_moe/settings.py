"""What decides a derived MoE: its shape, the text it is trained on, and how it is trained."""

from __future__ import annotations

from typing import Any

from pydantic import model_validator

from backend.settings import Settings, setting


class MoEShape(Settings):
    """How the n neurons of each MLP are cut into one shared expert and N routed ones of equal size."""

    shared: int = setting(768, "Neurons of the shared expert, which every token reads.", unit="neurons", gt=0)
    experts: int = setting(128, "Routed experts of a layer.", symbol="N", gt=1)
    top_k: int = setting(32, "Routed experts that a token reads in a layer.", symbol="K", gt=0)

    @model_validator(mode="after")
    def _leaves_a_choice(self) -> MoEShape:
        if self.top_k >= self.experts:
            raise ValueError(f"top_k {self.top_k} must be below the {self.experts} experts")
        return self

    def expert_size(self, neurons: int) -> int:
        """Return the neurons of one routed expert, m = (n − shared) / N.

        Raises:
            ValueError: The routed neurons do not divide by N.
        """
        routed = neurons - self.shared
        if routed <= 0 or routed % self.experts:
            raise ValueError(f"{routed} routed neurons cannot be cut into {self.experts} equal experts")
        return routed // self.experts

    def share_on(self, neurons: int) -> float:
        """Return the share of an MLP's neurons that a token reads: (shared + K·m) / n."""
        return (self.shared + self.top_k * self.expert_size(neurons)) / neurons


class Training(Settings):
    """The text, and how routers and corrections are learned."""

    window: int = setting(512, "Tokens of one window of training text.", unit="tokens", gt=1)
    wiki_share: float = setting(0.7, "Share of the windows that are WikiText-2 (train split).", ge=0, le=1)
    calibration_windows: int = setting(64, "Windows on which the dense model's MLPs are recorded.", gt=0)
    validation_windows: int = setting(8, "Windows held out of all training, to watch it.", gt=0)
    cluster_tokens: int = setting(8_192, "Recorded tokens that the clustering looks at.", unit="tokens", gt=0)
    search_tokens: int = setting(
        4_096, "Recorded tokens that the clustering looks at when shapes are compared.", unit="tokens", gt=0
    )
    router_tokens: int = setting(16_384, "Recorded tokens of the routers' regression.", unit="tokens", gt=0)
    router_spread: float = setting(
        0.5, "Standard deviation over a token's experts of the logits that the regression gives.", gt=0
    )
    lora_rank: int = setting(8, "Rank of the corrections on gate, up and down.", symbol="r", ge=0)
    sequence: int = setting(
        256, "Tokens of one distillation sequence; divides the window.", unit="tokens", gt=1
    )
    batch_tokens: int = setting(4_096, "Tokens of one distillation step.", unit="tokens", gt=0)
    steps: int = setting(234, "Steps of the distillation; 234 use all of the text once.", ge=0)
    router_rate: float = setting(4e-3, "Peak learning rate of the routers.", gt=0)
    scale_rate: float = setting(0.3, "Peak learning rate of the experts' scales, which are near N.", gt=0)
    correction_rate: float = setting(4e-3, "Peak learning rate of the low-rank corrections.", gt=0)
    gain_rate: float = setting(2e-3, "Peak learning rate of norm gains and biases.", gt=0)
    boundary: float = setting(
        0.3, "Width of the sigmoid through which unchosen experts near the K-th get a gradient.", gt=0
    )
    seed: int = setting(0, "Seed of the order of windows and of initial values.", ge=0)


def parse_settings(values: dict[str, Any]) -> tuple[MoEShape, Training]:
    """Split settings by name into the experts' sizes and the training.

    Raises:
        UserError: A name is unknown or a value out of its range.
    """
    sizes = {key: value for key, value in values.items() if key in MoEShape.model_fields}
    rest = {key: value for key, value in values.items() if key not in sizes}
    return MoEShape.parse(sizes, "derive-moe"), Training.parse(rest, "derive-moe")
