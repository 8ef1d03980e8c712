"""What a mask policy is: frozen settings, a version, and answers at the sites it cares about.

A policy says *which* entries are kept; :mod:`backend.sparsity.engine` applies it and accounts for what
was read. Importing a policy never imports torch, so that pages can make forms from its settings.

Four kinds of policy need no more than this class:

* a policy of **sites** overrides ``mlp_in``, ``mlp_mid``, ``attn_in`` or ``attn_out``;
* one with **state** per sequence also returns it from ``start``, finds it in ``context.state``, and may
  return what it counted from ``tallies``, to be stored beside the densities;
* one with **calibration** returns an ``observer`` that watches a dense run on calibration text, and
  finds what it fitted in ``context.calibration``;
* one that looks at the **dense pass** of its sequence (an oracle, or one that looks at the prompt alone)
  overrides ``prepare``, and finds what it returned in ``context.prepared``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self

from backend.errors import UserError
from backend.methods import Method, add_method
from backend.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from backend.models.anatomy import GatedMLP
    from backend.sparsity.dense_pass import DensePass

Site = Literal["mlp_in", "mlp_mid", "attn_in", "attn_out"]
Projection = Literal["gate", "up", "down"]
Ranked = Literal["x", "gate", "up", "neurons"]
SITES: tuple[Site, ...] = ("mlp_in", "mlp_mid", "attn_in", "attn_out")


@dataclass(frozen=True)
class Activations:
    """What has been computed when the neurons are chosen; fields that the policy did not ask for are None.

    Attributes:
        x: The MLP's input, input mask applied. # [B, T, d]
        gate: ``act(W_g x)``. # [B, T, n] or None
        up: ``W_u x``. # [B, T, n] or None
        neurons: ``gate * up``, the neurons' activations. # [B, T, n] or None
    """

    x: Tensor
    gate: Tensor | None = None
    up: Tensor | None = None
    neurons: Tensor | None = None


@dataclass(frozen=True)
class Context:
    """Where a policy is asked: the layer, its MLP, and what the policy brought along for it.

    Attributes:
        layer: Index of the decoder layer, from 0.
        layers: Number of decoder layers.
        mlp: The layer's MLP (shapes, weights, norms of the down projection's columns); None at the
            attention sites of a layer without a gated MLP.
        heads: Number of the layer's attention heads; None where they were not found.
        state: What ``start`` returned for this layer, one per run of sequences.
        calibration: What the policy's observer fitted, for all layers.
        prepared: What ``prepare`` returned for this sequence, for all layers.
    """

    layer: int
    layers: int
    mlp: GatedMLP | None
    heads: int | None = None
    state: Any = None
    calibration: Any = None
    prepared: Any = None


@dataclass(frozen=True)
class Ranking:
    """A mask that keeps the k largest magnitudes of something computed, so that a kernel can choose itself.

    Attributes:
        of: The input of the MLP, or which of its activations.
        k: Entries kept.
        weights: Factors on the magnitudes; None for none. # [N]
    """

    of: Ranked
    k: int
    weights: Tensor | None = None


class Observer(Protocol):
    """Watches a dense run on calibration text, then fits what the policy needs."""

    def observe(self, mlp: GatedMLP, activations: Activations) -> None:
        """Take note of one dense MLP call: all fields of ``activations`` are given."""
        ...

    def fit(self) -> Any:
        """Return what ``context.calibration`` will hold."""
        ...


@dataclass(frozen=True)
class Tally:
    """Something a policy counted over its sequences, stored as a measurement; tallies of one metric add up.

    Attributes:
        metric: The measurement's name ("hit_rate").
        part: What was counted.
        whole: What it is a share of; None: it is given per token.
        unit: The measurement's unit.
        in_weights: ``part`` counts weights, and the measurement is their bytes as they ran.
    """

    metric: str
    part: float
    whole: float | None
    unit: str
    in_weights: bool = False

    def __add__(self, other: Tally) -> Tally:
        """Add another count of the same metric (another layer, another sequence)."""
        whole = None if self.whole is None or other.whole is None else self.whole + other.whole
        return replace(self, part=self.part + other.part, whole=whole)


class Policy(Method):
    """A dynamic sparsity policy: which columns and neurons each token reads.

    Every mask is a boolean tensor shaped as what it masks (True: kept), made per token; None keeps
    everything.
    """

    kind = "mask"
    density_formula: ClassVar[str]
    """Its MLP density by its settings, in LaTeX."""
    needs: ClassVar[frozenset[Projection]] = frozenset()
    """Projections computed before the neurons are chosen, and so read for all neurons."""
    uncharged: ClassVar[frozenset[Projection]] = frozenset()
    """Projections in ``needs`` whose dropped rows the accounting counts as skipped (oracles only)."""
    whole_heads: ClassVar[bool] = False
    """What it drops at ``attn_out`` are whole heads, known beforehand: their queries are skipped too."""
    needs_prompt: ClassVar[bool] = False
    """It makes its masks of a prompt that runs dense; without one it keeps everything."""
    threshold_kept: ClassVar[bool] = False
    """How much it keeps varies from token to token: its settings do not fix the share."""
    prompt_alone: ClassVar[bool] = False
    """What ``prepare`` returns is made of the prompt alone and holds for all that is decoded after it."""

    @property
    def extra_reads(self) -> float:
        """What is read beside the masked pass, in dense tokens' weights a token (passes that renew masks)."""
        return 0.0

    def own_weights(self, hidden_size: int, neurons: int) -> int:
        """Return how many weights of its own (a predictor's) the policy reads a token in a layer of d × n."""
        return 0

    @classmethod
    def density_floor(cls) -> float:
        """Return the MLP density below which this method cannot go."""
        return 0.0

    def expected_density(self) -> float | None:
        """Return the MLP density these settings stand for, or None if only a measurement tells."""
        return None

    @classmethod
    def at_density(cls, density: float) -> Self:
        """Return this policy set to read the given share of MLP weights.

        Raises:
            UserError: The method cannot reach that density, or has no setting for it.
        """
        raise UserError(f"{cls.title} cannot be set to a target density.")

    def mlp_in(self, x: Tensor, context: Context) -> Tensor | None:
        """Choose input entries: columns of gate and up. ``x`` and the mask: # [B, T, d]."""
        return None

    def mlp_mid(self, activations: Activations, context: Context) -> Tensor | None:
        """Choose neurons: rows of gate and up, columns of down. The mask: # [B, T, n]."""
        return None

    def attn_in(self, x: Tensor, context: Context) -> Tensor | None:
        """Choose the attention's input entries: columns of q, k and v. # [B, T, d]."""
        return None

    def attn_out(self, x: Tensor, context: Context) -> Tensor | None:
        """Choose entries of the heads' outputs: columns of the output projection. # [B, T, h·d_h]."""
        return None

    def as_ranking(self, site: Site, context: Context) -> Ranking | None:
        """Return the mask of an MLP site as a ranking, if it is one; it says what ``mlp_in``, ``mlp_mid`` do.

        Decoding that skips weights then chooses in its own kernels; without it, it asks for the mask.
        """
        return None

    def fixed_neurons(self, context: Context) -> Tensor | None:
        """Return the mask of the neurons if it is the same for every token to come. # [n]

        Decoding that skips weights then looks it up once; without it, it asks for the mask.
        """
        return None

    def start(self, layer: int, sequences: Sequence[int]) -> Any:
        """Return this layer's state for new sequences (their running numbers, one a batch row)."""
        return None

    def tallies(self, context: Context) -> Sequence[Tally]:
        """Return what this layer's state has counted so far; asking changes nothing."""
        return ()

    def gauges(self, context: Context) -> Sequence[Tally]:
        """Return what this layer's state holds now (how full a cache is); it is no count and never stored."""
        return ()

    def observer(self) -> Observer | None:
        """Return a fresh observer if the policy needs calibration."""
        return None

    def prepare(self, dense: DensePass) -> Any:
        """Look at the dense model's pass of the sequence before the masked run."""
        return None

    @classmethod
    def sites(cls) -> list[Site]:
        """Return the sites at which this policy answers."""
        return [site for site in SITES if getattr(cls, site) is not getattr(Policy, site)]

    def used_sites(self) -> list[Site]:
        """Return the sites that these settings mask: the method's, or fewer where a setting says so."""
        return self.sites()


METHODS: Registry[type[Policy]] = Registry("method")
"""Every mask policy there is, by name."""


def method(policy: type[Policy]) -> type[Policy]:
    """Class decorator: register a policy under its ``name``."""
    return add_method(METHODS, policy)


def make_policy(name: str, settings: dict[str, Any]) -> Policy:
    """Return the mask policy called ``name`` with ``settings``; wrong ones raise ``UserError``."""
    return METHODS[name].parse(settings, name)
