"""Device profiles and the memory-bound simulator: how fast a policy would run on a phone. Free of torch."""

from backend.devices.expert_simulator import (
    EXPERT_BITS,
    ExpertSimulation,
    ExpertSimulator,
    ExpertSimulatorSettings,
)
from backend.devices.experts import ExpertTime, expert_time
from backend.devices.flash import Flash
from backend.devices.footprint import Footprint, Precision, footprint
from backend.devices.hit_curves import HitCurve, HitLaw
from backend.devices.hooks import (
    Hook,
    HookSite,
    RecordedHook,
    assumed_hooks,
    masked_linears,
    policy_keeps,
    recorded_hooks,
)
from backend.devices.moe_shapes import MOE_SHAPES, MoEShape, find_moe_shape
from backend.devices.options import SimulatorSettings
from backend.devices.outcome import PARTS, DramCurve, Replay, Simulation
from backend.devices.profiles import DEVICES, DeviceProfile
from backend.devices.roofline import bandwidth_share, roof_tokens_per_s
from backend.devices.shapes import SHAPES, ModelShape, find_shape
from backend.devices.simulate import simulate, simulator_of
from backend.devices.simulator import Simulator

__all__ = [
    "DEVICES",
    "EXPERT_BITS",
    "MOE_SHAPES",
    "PARTS",
    "SHAPES",
    "DeviceProfile",
    "DramCurve",
    "ExpertSimulation",
    "ExpertSimulator",
    "ExpertSimulatorSettings",
    "ExpertTime",
    "Flash",
    "Footprint",
    "HitCurve",
    "HitLaw",
    "Hook",
    "HookSite",
    "MoEShape",
    "ModelShape",
    "Precision",
    "RecordedHook",
    "Replay",
    "Simulation",
    "Simulator",
    "SimulatorSettings",
    "assumed_hooks",
    "bandwidth_share",
    "expert_time",
    "find_moe_shape",
    "find_shape",
    "footprint",
    "masked_linears",
    "policy_keeps",
    "recorded_hooks",
    "roof_tokens_per_s",
    "simulate",
    "simulator_of",
]
