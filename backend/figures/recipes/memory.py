"""Panels of the memory simulator: speed against DRAM, hit rates against cache size, where the time goes."""

from __future__ import annotations

from typing import Literal

from backend.devices import DEVICES, SimulatorSettings, find_shape
from backend.errors import UserError
from backend.experiments.recordings import load_recording, recordings
from backend.figures.headline import PAPER_DEVICE, PAPER_SHAPE, paper_dram_gb
from backend.figures.memory import hit_figure, speed_figure, time_figure
from backend.figures.memory_scene import Asked, Loaders, Scene, scene
from backend.figures.memory_sources import sources
from backend.figures.recipes.panels import PanelRecipe, Stored, recipe
from backend.figures.spec import FigureSpec
from backend.settings import setting

_LOADERS = Loaders(load_recording, lambda info, rule: load_recording(info).hooks(rule))


class MemoryRecipe(PanelRecipe):
    """What the memory simulator is asked."""

    device: str = setting(PAPER_DEVICE, "The device's profile.")
    shape: str = setting(PAPER_SHAPE, "The simulated model: a known shape, or the folder of one.")
    dram_gb: float | None = setting(
        None, "DRAM for the model; by default the paper's share of it.", unit="GB", gt=0.0
    )
    policy: Literal["dip", "dip_ca"] = setting("dip", "Which policy runs.")
    density: float = setting(0.8, "Target MLP density.", gt=0.0, le=1.0)
    gamma: float = setting(0.3, "Weight of columns outside the cache, of DIP-CA.", gt=0.0, le=1.0)
    eviction: Literal["lru", "lfu", "belady"] = setting("lru", "The caches' rule.")
    paper_mode: bool = setting(True, "The paper's assumptions.")
    log: bool = setting(True, "Logarithmic axis of speeds.")
    source: str | None = setting(None, "What was measured: model · text · …; by default most is known of.")

    def scene(self, stored: Stored) -> Scene:
        """Return what the page "DIP and memory" shows of it."""
        shape = find_shape(self.shape)
        settings = SimulatorSettings.paper() if self.paper_mode else SimulatorSettings()
        asked = Asked(
            DEVICES[self.device], shape, self.dram_gb or paper_dram_gb(shape), self.policy, self.density,
            self.gamma if self.policy == "dip_ca" else 1.0, self.eviction, settings, self.log,
        )  # fmt: skip
        known = {each.label: each for each in sources(stored.store, recordings(stored.home))}
        if self.source is not None and self.source not in known:
            raise UserError(
                f"Nothing was measured as '{self.source}'; known: {'; '.join(known) or 'nothing'}."
            )
        source = known[self.source] if self.source else next(iter(known.values()), None)
        shown = scene(asked, source, _LOADERS)
        if shown is None:
            raise UserError(
                "No point of DIP-CA is stored; its masks depend on the cache, so it has to run first."
            )
        return shown


@recipe("speed")
class SpeedPanel(MemoryRecipe):
    """Tokens a second against DRAM."""

    def draw(self, stored: Stored) -> FigureSpec:
        """Return the figure of speeds."""
        shown = self.scene(stored)
        title = shown.asked.device.title
        return speed_figure(shown.dense, shown.lines, shown.here, self.policy, log=self.log, device=title)


@recipe("hits")
class HitsPanel(MemoryRecipe):
    """Hit rates against cache size, under every rule."""

    def draw(self, stored: Stored) -> FigureSpec:
        """Return the figure of hit rates."""
        shown = self.scene(stored)
        start = shown.asked.settings.start
        return hit_figure(shown.recording, start, shown.points, shown.here, self.eviction)


@recipe("time")
class TimePanel(MemoryRecipe):
    """Where a token's time goes."""

    def draw(self, stored: Stored) -> FigureSpec:
        """Return the stacked bars."""
        return time_figure(self.scene(stored).here, self.policy)
