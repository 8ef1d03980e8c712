"""Simulate a policy on a device: the functions behind the command line and the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from backend.devices.hit_curves import HitLaw
from backend.devices.hooks import (
    Hook,
    HookSite,
    RecordedHook,
    assumed_hooks,
    masked_linears,
    policy_keeps,
    recorded_hooks,
)
from backend.devices.options import SimulatorSettings
from backend.devices.outcome import Simulation
from backend.devices.profiles import DEVICES, DeviceProfile
from backend.devices.shapes import ModelShape, find_shape
from backend.devices.simulator import Simulator
from backend.sparsity.policy import Policy


def simulate(
    device: str | DeviceProfile,
    shape: str | ModelShape,
    dram_gb: float,
    policy: Policy,
    *,
    recorded: Sequence[RecordedHook] | None = None,
    hits: HitLaw | Mapping[HookSite, float] = "uniform",
    settings: SimulatorSettings | None = None,
) -> Simulation:
    """Simulate one policy at one DRAM size.

    Args:
        device: A profile or its name.
        shape: A shape, its name, or a folder with a config.json.
        dram_gb: DRAM that the model may use, in GB.
        policy: The policy with its settings; ``dense`` streams the model from Flash.
        recorded: Densities and hit rates recorded on a model that ran, of this shape or another; None takes
            densities from the policy's settings and hit rates from ``hits``.
        hits: A law, or each site's hit rate, used without a recording.
        settings: What is assumed: the careful model by default, ``SimulatorSettings.paper()`` the paper's.

    Returns:
        Tokens a second beside the dense model's, hit rate, memory, where the time goes.

    Raises:
        UserError: A name is unknown, a figure out of range, or the recording does not fit the policy.
    """
    simulator = simulator_of(
        device,
        shape,
        policy,
        recorded=recorded,
        hits=hits,
        settings=settings,
    )
    return simulator.curve(dram_gb).at(0)


def simulator_of(
    device: str | DeviceProfile,
    shape: str | ModelShape,
    policy: Policy,
    *,
    recorded: Sequence[RecordedHook] | None = None,
    hits: HitLaw | Mapping[HookSite, float] = "uniform",
    settings: SimulatorSettings | None = None,
) -> Simulator:
    """Return the simulator of a policy, for many DRAM sizes at once: ``.curve([2.0, 2.5, 3.0])``.

    Arguments and errors as :func:`simulate`.
    """
    settings = settings or SimulatorSettings()
    profile = DEVICES[device] if isinstance(device, str) else device
    sizes = find_shape(shape) if isinstance(shape, str) else shape
    hooks = _hooks(sizes, policy, recorded, hits, settings)
    own = sizes.layers * policy.own_weights(sizes.hidden_size, sizes.neurons)
    return Simulator(profile, sizes, hooks, settings, own)


def _hooks(
    shape: ModelShape,
    policy: Policy,
    recorded: Sequence[RecordedHook] | None,
    hits: HitLaw | Mapping[HookSite, float],
    settings: SimulatorSettings,
) -> list[Hook]:
    linears = masked_linears(policy)
    if not linears:
        return []
    if recorded is not None:
        return recorded_hooks(shape, linears, recorded, settings)
    return assumed_hooks(shape, linears, policy_keeps(policy, shape.layers), hits, settings)
