"""Results: a DuckDB store made from run folders and seed, and what is asked of it.

>>> with Store.open(Home.resolve()) as store:   # or Store.in_memory while an app owns it
...     store.ingest()
...     queries.points(store, model="smollm2-135m", tokens=16_384)
"""

from backend.results import queries
from backend.results.bundles import export_run, import_bundle
from backend.results.connection import StoreBusy
from backend.results.export import export_measurements
from backend.results.store import Store

__all__ = ["Store", "StoreBusy", "export_measurements", "export_run", "import_bundle", "queries"]
