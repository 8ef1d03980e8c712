"""Random traces for hypothesis: few entries and few distinct scores, so that ties are the rule."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from backend.residency import ExpertTrace, MaskTrace

SHAPES = st.tuples(st.integers(1, 14), st.integers(1, 11))
LEVELS = st.sampled_from([0.0, 0.25, 0.5, 1.0, 3.0])


@st.composite
def mask_traces(draw, scored=None):
    """Masks of any size a token, with or without the scores that order loads."""
    shape = draw(SHAPES)
    masks = draw(arrays(bool, shape))
    with_scores = draw(st.booleans()) if scored is None else scored
    scores = draw(arrays(np.float32, shape, elements=LEVELS)) if with_scores else None
    return MaskTrace.from_masks(masks, scores)


@st.composite
def expert_traces(draw):
    """K experts a token, sometimes fewer, in an order that matters."""
    experts = draw(st.integers(2, 9))
    most = draw(st.integers(1, experts))
    token = st.permutations(range(experts)).flatmap(
        lambda order: st.integers(0, most).map(lambda k: order[:k])
    )
    return ExpertTrace.from_lists(draw(st.lists(token, min_size=1, max_size=14)), experts)


def score_matrices():
    return SHAPES.flatmap(lambda shape: arrays(np.float32, shape, elements=LEVELS))
