from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backend.figures.front import pareto_front

# Few distinct values, so that ties are frequent.
values = st.sampled_from([0.0, 0.125, 0.25, 0.5, 0.75, 1.0])
points = st.lists(st.tuples(values, values), max_size=14)
tolerances = st.sampled_from([0.0, 0.125, 0.3])


def obvious_front(cost: list[float], loss: list[float], tolerance: float) -> list[bool]:
    """Compare every point with every other, word by word as the docstring says."""
    on_front = []
    for i in range(len(cost)):
        dominated = False
        for j in range(len(cost)):
            better_as_cheap = loss[j] < loss[i] and cost[j] <= cost[i] + tolerance
            as_good_cheaper = loss[j] <= loss[i] and cost[j] < cost[i]
            dominated = dominated or better_as_cheap or as_good_cheaper
        on_front.append(not dominated)
    return on_front


@given(points, tolerances)
def test_the_front_is_what_comparing_all_pairs_gives(
    pairs: list[tuple[float, float]], tolerance: float
) -> None:
    cost, loss = [c for c, _ in pairs], [q for _, q in pairs]
    assert pareto_front(cost, loss, "lower", tolerance) == obvious_front(cost, loss, tolerance)


@given(points, tolerances)
def test_higher_is_better_mirrors_lower_is_better(pairs: list[tuple[float, float]], tolerance: float) -> None:
    cost, gain = [c for c, _ in pairs], [q for _, q in pairs]
    mirrored = pareto_front(cost, [-q for q in gain], "lower", tolerance)
    assert pareto_front(cost, gain, "higher", tolerance) == mirrored


@given(points.filter(bool))
def test_the_best_and_the_cheapest_are_on_the_front(pairs: list[tuple[float, float]]) -> None:
    cost, loss = [c for c, _ in pairs], [q for _, q in pairs]
    on_front = pareto_front(cost, loss, "lower")
    assert on_front[min(range(len(pairs)), key=lambda i: (loss[i], cost[i]))]
    assert on_front[min(range(len(pairs)), key=lambda i: (cost[i], loss[i]))]


@given(points, st.data())
def test_a_dominated_point_changes_nothing(pairs: list[tuple[float, float]], data: st.DataObject) -> None:
    cost, loss = [c for c, _ in pairs], [q for _, q in pairs]
    before = pareto_front(cost, loss, "lower")
    if not pairs:
        return
    place = data.draw(st.integers(0, len(pairs) - 1))
    after = pareto_front([*cost, cost[place] + 1], [*loss, loss[place] + 1], "lower")
    assert after == [*before, False]


def test_costs_within_the_tolerance_count_as_equal() -> None:
    assert pareto_front([0.900, 0.9002], [22.84, 22.76], "lower") == [True, True]
    assert pareto_front([0.900, 0.9002], [22.84, 22.76], "lower", 0.002) == [False, True]
