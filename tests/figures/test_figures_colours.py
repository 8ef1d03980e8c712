"""Colours told apart by every reader: simulated colour vision (Machado et al. 2009) and grey print."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from backend.figures.drawing.scales import colour_at
from backend.figures.palette import COLOURS, STYLES, Style, style_of
from backend.figures.paper import PALETTES
from backend.methods import every_method

VISION = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
"""Machado, Oliveira and Fernandes 2009, severity 1.0, on linear RGB."""


def linear(colour: str) -> np.ndarray:
    parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of linear sRGB under D65."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    share = to_xyz @ np.clip(rgb, 0, 1) / np.array([0.95047, 1.0, 1.08883])
    f = np.where(share > (6 / 29) ** 3, np.cbrt(share), share / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def difference(one: str, other: str, vision: str) -> float:
    seen = [lab(VISION[vision] @ linear(colour)) for colour in (one, other)]
    return float(np.linalg.norm(seen[0] - seen[1]))


def test_the_ruler_is_right() -> None:
    """Against the known Lab value of pure sRGB red, and ΔE76 of black and white."""
    assert lab(linear("#FF0000")) == pytest.approx([53.24, 80.09, 67.20], abs=0.05)
    assert difference("#000000", "#FFFFFF", "normal") == pytest.approx(100, abs=0.05)


@pytest.mark.parametrize("vision", list(VISION))
@pytest.mark.parametrize("palette", ["okabe-ito", "tol-bright"])
def test_the_first_six_colours_differ_for_every_reader(palette: str, vision: str) -> None:
    for one, other in itertools.combinations(PALETTES[palette].colours[:6], 2):
        assert difference(one, other, vision) >= 15, (one, other)


@pytest.mark.parametrize("palette", list(PALETTES))
def test_styles_stay_apart_without_colour(palette: str) -> None:
    """In print without colour marker and dash tell the methods apart; none shares both with another."""
    looks = [(style.marker, style.dash) for style in STYLES.values()]
    assert len(set(looks)) == len(looks)
    mapped = [PALETTES[palette].colour(colour) for colour in COLOURS]
    assert len(set(mapped)) == len(COLOURS)


def test_every_registered_method_has_a_marker_and_dash_of_its_own() -> None:
    styles: list[Style] = [style_of(name) for name in every_method()]
    assert len(set(styles)) == len(styles)


def test_the_grey_palette_is_grey_and_dark_enough_to_print() -> None:
    for colour in PALETTES["grey"].colours:
        red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
        assert red == green == blue <= 0xB0


@pytest.mark.parametrize("kind", ["sequential", "diverging"])
@pytest.mark.parametrize("vision", list(VISION))
def test_steps_of_the_scales_are_seen_by_every_reader(kind: str, vision: str) -> None:
    steps = ["#" + "".join(f"{round(255 * p):02X}" for p in colour_at(kind, i / 6)) for i in range(7)]
    for one, other in itertools.pairwise(steps):
        assert difference(one, other, vision) >= 5, (one, other)  # just noticeable: 2.3
