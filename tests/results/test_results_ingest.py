from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from results_samples import (
    at,
    content,
    ended,
    event,
    finished,
    lines,
    started,
    status,
    sweep,
    this_process,
    write_run,
)

from backend.home import Home
from backend.results import Store, queries
from backend.results import store as store_module
from backend.results.ingest import take_batch

STREAM = (
    lines([*sweep(), started(20), finished("c0", 21, perplexity=19.0), finished("c2", 22)])
    + b"not json\n"
    + lines([event("message", 23, message="déjà vu"), event("cell_failed", 24, cell="c3", message="no")])
    + lines([ended(25)])
)


def test_a_run_is_found_again_in_the_store(home: Home, store: Store) -> None:
    write_run(home)
    assert store.ingest() == len(sweep())
    run = queries.run(store, "r1")
    assert run is not None
    assert (run.name, run.kind, run.status, run.source) == ("Run r1", "sweep", "done", "local")
    assert (run.spec, run.planned, run.message) == ({"a": 1}, ["c0", "c1"], "2 cells measured.")
    assert run.provenance["git"] == "abc"
    points = queries.points(store)
    assert points["perplexity"].tolist() == [20.0, 20.0]
    assert points["mlp_density"].tolist() == [0.25, 0.5]
    assert queries.window_values(store, ["c1"], "delta_nll").loc["c1"].tolist() == [0.1, 0.2, 0.3]


def test_ingesting_twice_changes_nothing(home: Home, store: Store) -> None:
    write_run(home)
    store.ingest()
    before, version = content(store), store.version
    assert store.ingest() == 0
    assert content(store) == before
    assert store.version == version


def test_version_grows_when_something_is_new(home: Home, store: Store) -> None:
    path = write_run(home, events=[started(process=this_process())])
    store.ingest()
    version = store.version
    with path.open("ab") as file:
        file.write(lines([finished("c0")]))
    store.ingest()
    assert store.version > version


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, len(STREAM)), max_size=6).map(sorted), budget=st.integers(1, 3000))
def test_any_split_of_the_stream_gives_the_same_store(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, cuts: list[int], budget: int
) -> None:
    def ingested(pieces: list[bytes], budget: int) -> dict[str, list[str]]:
        monkeypatch.setattr(store_module, "take_batch", lambda *given: take_batch(*given, budget))
        home = Home.resolve(tmp_path_factory.mktemp("split"))
        path = write_run(home, events=[])
        with Store.in_memory(home) as store:
            for piece in pieces:
                with path.open("ab") as file:
                    file.write(piece)
                store.ingest()
            assert len(store.notices) == 1
            return content(store)

    pieces = [STREAM[a:b] for a, b in zip([0, *cuts], [*cuts, len(STREAM)], strict=True)]
    assert ingested(pieces, budget) == ingested([STREAM], 2**20)


def test_a_torn_last_line_is_left_for_later(home: Home, store: Store) -> None:
    whole = lines(sweep())
    path = write_run(home, events=[])
    path.write_bytes(whole[:-30])
    assert store.ingest() == len(sweep()) - 1
    assert store.notices == []
    path.write_bytes(whole)
    assert store.ingest() == 1
    assert status(store) == "done"


def test_a_resumed_run_that_cut_its_torn_line_goes_on(home: Home, store: Store) -> None:
    path = write_run(home, events=[])
    path.write_bytes(lines([started()]) + b'{"at":"2026')
    store.ingest()
    assert status(store) == "interrupted"
    path.write_bytes(lines([started(), started(5, this_process())]))
    assert store.ingest() == 1
    assert status(store) == "running"


@pytest.mark.parametrize("shorter", [True, False], ids=["shorter", "longer"])
def test_a_rewritten_log_is_read_anew(home: Home, store: Store, shorter: bool) -> None:
    path = write_run(home, events=sweep(["old0", "old1"]))
    store.ingest()
    path.write_bytes(lines(sweep(["new"] if shorter else ["new0", "new1", "new2"])))
    store.ingest()
    with Store.in_memory(home) as fresh:
        assert content(store) == content(fresh)
    assert store.rows("SELECT count(*) FROM cells WHERE cell_id LIKE 'old%'") == [(0,)]


@pytest.mark.parametrize(
    "bad",
    [
        b"\xff\xfe",
        b"[1]",
        b"7",
        b"",
        b'{"at":"yesterday","kind":"message"}',
        b'{"at":"2026-01-01T00:00:00Z"}',
        b'{"at":"2026-01-01T00:00:00Z","kind":"message","message":"\\ud800"}',
        b'{"at":"2026-01-01T00:00:00Z","kind":"cell_finished","cell":"c"}',
        lines([finished("c") | {"measurements": [{"metric": "kl"}]}])[:-1],
        lines([finished("c") | {"measurements": [{"metric": "kl", "value": 1, "n": 2**70, "how": ""}]}])[:-1],
        b"[" * 100_000,
    ],
)  # fmt: skip
def test_a_line_that_is_no_event_is_skipped_with_one_notice(home: Home, store: Store, bad: bytes) -> None:
    path = write_run(home, events=[started()])
    with path.open("ab") as file:
        file.write(bad + b"\n" + lines([finished("c0"), ended()]))
    assert store.ingest() == 3
    store.ingest()
    assert [notice for notice in store.notices if "Line 2 of runs/r1/events.jsonl" in notice] == store.notices
    assert len(store.notices) == 1
    assert status(store) == "done"


def test_numbers_that_json_has_no_name_for_are_kept_where_a_number_belongs(home: Home, store: Store) -> None:
    odd = event("message", message="x", ratio=float("inf"), big=10**400, nul="a\0b")
    write_run(home, events=[started(), odd, finished("c0", perplexity=float("inf")), ended()])
    assert store.ingest() == 4
    assert queries.points(store)["perplexity"].tolist() == [float("inf")]
    payload = json.loads(queries.events(store, "r1")["payload"][1])
    assert (payload["ratio"], payload["nul"]) == (None, "a\0b")


def test_times_with_an_offset_are_kept_as_utc(home: Home, store: Store) -> None:
    write_run(home, events=[started() | {"at": "2026-01-01T02:00:00+02:00"}])
    store.ingest()
    run = queries.run(store, "r1")
    assert run is not None
    assert run.started_at is not None
    assert run.started_at.isoformat() == "2026-01-01T00:00:00"


def test_a_folder_without_run_json_waits(home: Home, store: Store) -> None:
    folder = home.runs / "r1"
    folder.mkdir()
    (folder / "events.jsonl").write_bytes(lines(sweep()))
    assert store.ingest() == 0
    (folder / "run.json").write_text('{"run": "r1", "na')
    assert store.ingest() == 0
    (folder / "run.json").write_text(
        json.dumps({"run": "r1", "name": "n", "kind": "sweep", "created_at": at(0), "spec": {}})
    )
    assert store.ingest() == len(sweep())


def test_a_run_json_with_half_a_character_stops_no_other_run(home: Home, store: Store) -> None:
    asked = {"run": "r0", "name": "n", "kind": "generation", "created_at": at(0), "spec": {"p": "a\ud800b"}}
    write_run(home, "r0")
    (home.runs / "r0" / "run.json").write_text(json.dumps(asked))
    write_run(home, "r1")
    assert store.ingest() == len(sweep())
    assert store.rows("SELECT run_id FROM runs") == [("r1",)]


def test_many_runs_share_batches(home: Home, store: Store) -> None:
    for number in range(30):
        write_run(home, f"r{number:02}", sweep([f"c{number}"], second=number))
    assert store.ingest() == 30 * len(sweep(["c"]))
    assert len(queries.points(store)) == 30


def test_a_line_longer_than_a_batch_is_read(
    home: Home, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "take_batch", lambda *given: take_batch(*given, 100))
    write_run(home, events=[started(), finished("c0", windows=[0.5] * 10_000), ended()])
    assert store.ingest() == 3
    assert queries.window_values(store, ["c0"], "delta_nll").shape == (1, 10_000)


def test_run_folders_may_be_absent(home: Home, store: Store) -> None:
    home.runs.rmdir()
    assert store.ingest() == 0


def test_unknown_kinds_of_later_programs_are_kept_in_the_log(home: Home, store: Store) -> None:
    write_run(home, events=[started(), event("heat_death", 3, entropy=1)])
    assert store.ingest() == 2
    assert queries.events(store, "r1")["kind"].tolist() == ["run_started", "heat_death"]
