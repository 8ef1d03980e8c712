from __future__ import annotations

from backend.experiments.provenance import machine_name, machine_of, provenance


def test_a_run_names_the_machine_that_its_latencies_were_measured_on() -> None:
    assert machine_of(provenance("cpu", 3)) == machine_name("cpu", 3)


def test_an_older_run_names_what_it_knows() -> None:
    assert machine_of({}) == "unknown processor, ? cores, ?, ? threads"
