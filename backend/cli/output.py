"""What commands say: records on stdout, progress on stderr."""

from __future__ import annotations

import json
from typing import Any


def print_record(record: dict[str, Any], as_json: bool) -> None:
    """Print a record, a line a value or as JSON."""
    if as_json:
        print(json.dumps(record))
        return
    for key, value in record.items():
        shown = f"{value:.6g}" if isinstance(value, float) else value
        print(f"{key:<20} {shown}")


class Steps:
    """Progress on stderr: a bar where it is a terminal, else nothing but new steps."""

    def __enter__(self) -> Steps:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
        )
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._bar.start()
        self._tasks: dict[str, Any] = {}
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def report(self, message: str, share: float | None) -> None:
        """Show a step of fetching or loading."""
        task = self._task(message, 100)
        self._bar.update(task, completed=100 * share if share is not None else 0)

    def progress(self, progress: Any) -> None:
        """Show how far a sweep is."""
        task = self._task("windows", progress.total)
        left = "" if progress.seconds_left is None else f"{progress.seconds_left / 60:.1f} min left"
        self._bar.update(task, completed=progress.done, left=f"{left}  {progress.cell}")

    def _task(self, name: str, total: int) -> Any:
        if name not in self._tasks:
            self._tasks[name] = self._bar.add_task(name, total=total, left="")
        return self._tasks[name]
