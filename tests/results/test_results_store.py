from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pytest
from results_samples import content, finished, lines, started, sweep, write_run

from backend.errors import UserError
from backend.home import REPOSITORY, Home
from backend.results import Store, StoreBusy, queries
from backend.results import store as store_module
from backend.results.ingest import take_batch

OWNER = """
import sys
from backend.home import Home
from backend.results import Store
with Store.open(Home.resolve(sys.argv[1])):
    print("open", flush=True)
    sys.stdin.read()
"""
SLOW_INGEST = """
import sys
from backend.home import Home
from backend.results import store as module
whole = module.take_batch
def in_small_batches(*given):
    batch = whole(*given, 2000)
    print("batch", flush=True)
    return batch
module.take_batch = in_small_batches
with module.Store.open(Home.resolve(sys.argv[1])) as store:
    store.ingest()
"""


def python(script: str, home: Home) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, str(home.root)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_second_process_is_told_who_has_the_results_open(home: Home) -> None:
    write_run(home)
    owner = python(OWNER, home)
    assert owner.stdout is not None
    assert owner.stdout.readline() == "open\n"
    with pytest.raises(StoreBusy, match=f"process {owner.pid}.*--home") as busy:
        Store.open(home)
    assert busy.value.pid == owner.pid
    with Store.in_memory(home) as store:
        assert queries.points(store)["perplexity"].tolist() == [20.0, 20.0]
    owner.communicate("")
    with Store.open(home) as store:
        assert store.ingest() == len(sweep())


@pytest.mark.parametrize("batches", [1, 4, 9])
def test_an_owner_killed_during_ingest_loses_and_doubles_nothing(home: Home, batches: int) -> None:
    write_run(home, "r1", sweep([f"a{n}" for n in range(60)]))
    write_run(home, "r2", sweep([f"b{n}" for n in range(60)], second=100))
    owner = python(SLOW_INGEST, home)
    assert owner.stdout is not None
    for _ in range(batches):
        owner.stdout.readline()
    owner.kill()
    owner.communicate()
    with Store.open(home) as store, Store.in_memory(home) as fresh:
        store.ingest()
        assert content(store) == content(fresh)
        assert len(queries.points(store)) == 120


@pytest.fixture
def closed(home: Home) -> dict[str, list[str]]:
    """The content of a database of some blocks that was closed."""
    write_run(home, "r1", sweep([f"c{n}" for n in range(500)]))
    with Store.open(home) as store:
        store.ingest()
        return content(store)


def opens_with(home: Home, expected: dict[str, list[str]]) -> list[str]:
    """Open the store, catch up, compare; return the notices."""
    with Store.open(home) as store:
        store.ingest()
        assert content(store) == expected
        return store.notices


@pytest.mark.parametrize(
    "damaged",
    [lambda _: b"", lambda _: b"no database " * 999, lambda whole: whole[: len(whole) // 2]],
    ids=["empty", "other", "half"],
)
def test_a_damaged_database_is_moved_aside_and_made_again(
    home: Home, closed: dict[str, list[str]], damaged: Callable[[bytes], bytes]
) -> None:
    broken = damaged(home.database.read_bytes())
    home.database.write_bytes(broken)
    (notice,) = opens_with(home, closed)
    assert "moved to results.duckdb.damaged-" in notice
    (aside,) = home.root.glob("results.duckdb.damaged-*")
    assert aside.read_bytes() == broken
    assert opens_with(home, closed) == []


@pytest.mark.parametrize("part", range(8))
def test_flipped_bits_anywhere_cost_nothing(home: Home, closed: dict[str, list[str]], part: int) -> None:
    whole = bytearray(home.database.read_bytes())
    where = len(whole) * part // 8 + 99
    whole[where : where + 64] = bytes(255 - byte for byte in whole[where : where + 64])
    home.database.write_bytes(whole)
    opens_with(home, closed)


@pytest.mark.parametrize("keep", [0.3, 0.9, None], ids=["torn", "cut", "garbage"])
def test_a_damaged_write_ahead_log_costs_nothing(home: Home, keep: float | None) -> None:
    write_run(home, "r1", sweep([f"c{n}" for n in range(50)]))
    owner = python(OWNER.replace("print", "store.ingest(); print").replace("):", ") as store:", 1), home)
    assert owner.stdout is not None
    assert owner.stdout.readline() == "open\n"
    owner.kill()
    owner.communicate()
    log = home.root / "results.duckdb.wal"
    whole = log.read_bytes()
    log.write_bytes(b"garbage" * 999 if keep is None else whole[: int(len(whole) * keep)])
    with Store.in_memory(home) as fresh:
        opens_with(home, content(fresh))


def test_a_home_that_cannot_be_written_is_a_sentence(home: Home) -> None:
    home.database.mkdir()
    with pytest.raises(UserError, match="cannot be opened"):
        Store.open(home)


def test_two_stores_of_one_process_take_turns(home: Home) -> None:
    write_run(home)
    with Store.open(home) as one, Store.open(home) as two:
        assert one.ingest() + two.ingest() == len(sweep())
        assert len(queries.points(two)) == 2
        assert one.version == two.version


def test_threads_share_a_store_while_a_run_grows(home: Home, store: Store) -> None:
    path = write_run(home, events=[started()])
    failures: list[Exception] = []
    over = threading.Event()

    def page() -> None:
        seen = 0
        while not over.is_set():
            try:
                store.ingest()
                now = len(queries.points(store))
                assert now >= seen
                seen = now
            except Exception as error:  # noqa: BLE001
                failures.append(error)
                return

    pages = [threading.Thread(target=page) for _ in range(3)]
    for thread in pages:
        thread.start()
    for number in range(40):
        with path.open("ab") as file:
            file.write(lines([finished(f"c{number}", number)]))
    over.set()
    for thread in pages:
        thread.join()
    store.ingest()
    assert failures == []
    assert store.rows("SELECT count(*), count(DISTINCT seq) FROM events") == [(41, 41)]
    assert len(queries.points(store)) == 40


def test_a_failed_transaction_leaves_nothing(
    home: Home, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(home)
    before = content(store)

    def fails_at_the_end(*given: object) -> None:
        take_batch(*given)  # type: ignore[arg-type]
        raise RuntimeError("killed here")

    with monkeypatch.context() as patch:
        patch.setattr(store_module, "take_batch", fails_at_the_end)
        with pytest.raises(RuntimeError):
            store.ingest()
    assert content(store) == before
    assert store.ingest() == len(sweep())


@pytest.mark.parametrize("memory", [True, False], ids=["in memory", "file"])
def test_after_a_fatal_error_the_store_is_opened_anew(
    home: Home, monkeypatch: pytest.MonkeyPatch, memory: bool
) -> None:
    write_run(home)

    def fails(*given: object) -> None:
        raise duckdb.FatalException("the database has been invalidated")

    with Store.in_memory(home) if memory else Store.open(home) as store:
        store.ingest()
        expected = content(store)
        with monkeypatch.context() as patch:
            patch.setattr(store_module, "take_batch", fails)
            with pytest.raises(UserError, match="opened anew"):
                store.ingest()
        store.ingest()
        assert content(store) == expected


def test_a_closed_store_is_not_opened_again_by_accident(home: Home) -> None:
    store = Store.open(home)
    store.close()
    store.close()
    with pytest.raises(RuntimeError, match="closed"):
        queries.runs(store)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs the right to mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_a_sentence_and_nothing_is_lost(small_disk: Path, tmp_path: Path) -> None:
    home = Home.resolve(small_disk)
    home.runs.rmdir()
    elsewhere = tmp_path / "runs"
    elsewhere.mkdir()
    home.runs.symlink_to(elsewhere)
    write_run(home, "r1")
    with Store.open(home) as store:
        store.ingest()
        before = content(store)
        filler = small_disk / "filler"
        filler.write_bytes(bytes(_free(small_disk) - 40_000))
        write_run(home, "r2", sweep([f"{n:032}" for n in range(3000)], second=60))
        with pytest.raises(UserError, match=r"disk .*is full"):
            store.ingest()
        assert content(store)["results"] == before["results"]
        assert len(queries.points(store)) == 2
        filler.unlink()
        store.ingest()
        expected = content(store)
        assert len(queries.points(store)) == 3002
    with Store.open(home) as store, Store.in_memory(home) as fresh:
        assert content(store) == expected == content(fresh)


def _free(folder: Path) -> int:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def test_importing_results_needs_neither_torch_nor_streamlit() -> None:
    script = "import sys, backend.results; print({'torch', 'streamlit'} & sys.modules.keys())"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"
