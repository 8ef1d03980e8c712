"""Drawing a page inside the app.

Streamlit runs every file in a folder called ``pages`` by itself, without app.py, as long as app.py has not
run in this process: that is, when the first address opened after a start is not Home's. Then the page lets
app.py run first, which draws the page again with the navigation and settings of the app.
"""

from __future__ import annotations

import runpy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from backend.home import REPOSITORY

_BY_APP: ContextVar[bool] = ContextVar("drawn by app.py", default=False)


@contextmanager
def by_app() -> Iterator[None]:
    """Within it, pages know that app.py draws them."""
    token = _BY_APP.set(True)
    try:
        yield
    finally:
        _BY_APP.reset(token)


def draw(page: Callable[[], None]) -> None:
    """Draw a page, through app.py if that has not run yet."""
    if _BY_APP.get():
        page()
    else:
        runpy.run_path(str(REPOSITORY / "app.py"), run_name="__main__")
