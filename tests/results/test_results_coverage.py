"""How much of a sweep is stored: by settings, versions, evaluation and model."""

from __future__ import annotations

from backend.experiments.sweep import Sweep
from backend.home import Home
from backend.results import Store
from backend.results.coverage import coverage
from tests.figures.figures_samples import MODEL, TEXT, WINDOW, WINDOWS, write_results

ASKED = {
    "name": "asked",
    "model": "any",
    "evaluation": {"text": TEXT, "tokens": WINDOWS * WINDOW, "window": WINDOW},
    "policies": [{"method": "dense"}, {"method": "dip", "density": [0.3, 0.4, 0.5]}],
}
SHA = f"sha-{MODEL}".ljust(64, "0")


def test_what_is_stored_of_a_sweep_is_counted(home: Home) -> None:
    with Store.in_memory(write_results(home)) as store:
        sweep = Sweep.parse(ASKED, "asked")
        assert coverage(store, sweep, SHA) == (3, 4)
        assert coverage(store, sweep, "another") == (0, 4)
        assert coverage(store, sweep, None) == (0, 4)
        other = Sweep.parse({**ASKED, "evaluation": {**ASKED["evaluation"], "window": 32}}, "other")
        assert coverage(store, other, SHA) == (0, 4)


def test_a_result_of_an_older_version_does_not_count(home: Home, monkeypatch) -> None:
    from backend.sparsity import METHODS

    with Store.in_memory(write_results(home)) as store:
        monkeypatch.setattr(METHODS["dip"], "version", METHODS["dip"].version + 1)
        assert coverage(store, Sweep.parse(ASKED, "asked"), SHA) == (1, 4)
