from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from results_samples import content, event, finished, lines, started, status, sweep, this_process, write_run

from backend.errors import UserError
from backend.home import Home
from backend.results import Store, export_run, import_bundle, queries

SHARED = ("cells", "results", "measurements", "windows")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A run of another home, exported."""
    other = Home.resolve(tmp_path / "other")
    write_run(other, "theirs")
    folder = tmp_path / "bundle"
    with Store.open(other) as store:
        store.ingest()
        export_run(store, "theirs", folder)
    return folder


def test_a_run_comes_back_as_it_was_exported(store: Store, bundle: Path, tmp_path: Path) -> None:
    assert import_bundle(store, bundle) == ["theirs"]
    with Store.open(Home.resolve(tmp_path / "other")) as other:
        theirs, ours = content(other), content(store)
        assert [ours[table] for table in SHARED] == [theirs[table] for table in SHARED]
        mine, original = queries.run(store, "theirs"), queries.run(other, "theirs")
    assert mine is not None
    assert original is not None
    assert (mine.source, original.source) == ("import", "local")
    assert (mine.provenance, mine.spec, mine.status) == (original.provenance, original.spec, "done")
    assert queries.runs(store)["measured"].tolist() == [2]


def test_a_bundle_of_found_cells_counts_what_is_stored_of_them(store: Store, tmp_path: Path) -> None:
    other = Home.resolve(tmp_path / "other")
    write_run(other, "first")
    found = [event("cell_found", 21, cell=cell) for cell in ("c0", "c1")]
    write_run(other, "second", [started(20), event("run_planned", 20, cells=["c0", "c1", "lost"]), *found])
    with Store.open(other) as theirs:
        theirs.ingest()
        for run in ("first", "second"):
            export_run(theirs, run, tmp_path / run)
    import_bundle(store, tmp_path / "first")
    import_bundle(store, tmp_path / "second")
    counts = queries.runs(store).set_index("run_id")
    assert counts.loc["second", ["planned", "measured", "done"]].tolist() == [3, 0, 2]


def test_importing_twice_changes_nothing(store: Store, bundle: Path) -> None:
    import_bundle(store, bundle)
    before, version = content(store), store.version
    import_bundle(store, bundle)
    assert content(store) == before
    assert store.version == version


def test_imports_survive_the_loss_of_the_database(home: Home, bundle: Path) -> None:
    with Store.open(home) as store:
        import_bundle(store, bundle)
        before = content(store)
    home.database.unlink()
    shutil.rmtree(bundle)
    with Store.open(home) as store, Store.in_memory(home) as fresh:
        assert content(store) == before == content(fresh)


def test_the_same_run_gives_the_same_bytes(tmp_path: Path, bundle: Path) -> None:
    with Store.open(Home.resolve(tmp_path / "other")) as store:
        export_run(store, "theirs", tmp_path / "again")
    for file in bundle.iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()


def test_seed_is_there_on_first_open_and_follows_the_checkout(
    home: Home, bundle: Path, no_seed: Path
) -> None:
    shutil.copytree(bundle, no_seed / "first")
    with Store.open(home) as store:
        assert queries.runs(store)[["run_id", "source"]].to_numpy().tolist() == [["theirs", "seed"]]
        assert len(queries.points(store)) == 2
        before = content(store)
    with Store.open(home) as store:
        assert content(store) == before
    with Store.in_memory(home) as store:
        assert content(store) == before
    shutil.rmtree(no_seed / "first")
    with Store.open(home) as store:
        assert queries.runs(store).empty
        assert queries.points(store).empty


def test_a_seed_that_cannot_be_read_is_a_notice(home: Home, bundle: Path, no_seed: Path) -> None:
    shutil.copytree(bundle, no_seed / "broken")
    (no_seed / "broken" / "cells.parquet").write_bytes(b"PAR0")
    with Store.open(home) as store:
        assert "broken holds no bundle" in store.notices[0]
        assert queries.runs(store).empty


@pytest.mark.parametrize("folder_first", [True, False])
def test_a_run_of_this_home_stands_above_its_bundle(
    tmp_path: Path, bundle: Path, no_seed: Path, folder_first: bool
) -> None:
    home = Home.resolve(tmp_path / "other")
    if folder_first:
        with Store.open(home) as store:
            import_bundle(store, bundle)
            assert queries.runs(store)[["source", "measured"]].to_numpy().tolist() == [["local", 2]]
    else:
        shutil.copytree(bundle, no_seed / "first")
        home.database.unlink()
        with Store.open(home) as store:
            assert queries.runs(store)["source"].tolist() == ["seed"]
            store.ingest()
            assert queries.runs(store)[["source", "measured"]].to_numpy().tolist() == [["local", 2]]
            assert len(queries.events(store, "theirs")) == len(sweep())


def test_what_has_no_end_or_is_not_there_is_not_exported(home: Home, store: Store, tmp_path: Path) -> None:
    write_run(home, events=[started(process=this_process())])
    store.ingest()
    with pytest.raises(UserError, match="is running"):
        export_run(store, "r1", tmp_path / "x")
    with pytest.raises(UserError, match="no run 'r2'"):
        export_run(store, "r2", tmp_path / "x")
    with pytest.raises(UserError, match="no bundle"):
        import_bundle(store, tmp_path)
    assert not (tmp_path / "x").exists()


def test_a_bundle_holds_what_its_run_measured_only(home: Home, store: Store, tmp_path: Path) -> None:
    write_run(home, "r1")
    path = write_run(home, "r2", [started(), event("cell_found", 1, cell="c0"), finished("z", 2)], second=9)
    path.write_bytes(path.read_bytes() + lines([event("run_finished", 3, status="done", message="")]))
    store.ingest()
    export_run(store, "r2", tmp_path / "r2")
    with Store.open(Home.resolve(tmp_path / "third")) as third:
        import_bundle(third, tmp_path / "r2")
        assert queries.points(third)["cell_id"].tolist() == ["z"]
        assert status(third, "r2") == "done"
