"""Models: the catalog of named ones, where their files come from, and loading them.

Importing this package imports neither torch nor transformers nor huggingface_hub: the functions do.
"""

from backend.models.catalog import (
    CATALOG,
    DEFAULT_MODEL,
    DERIVED_MOE,
    OTHER_SOURCES,
    SPARSER_MOE,
    CatalogEntry,
    DerivedSource,
    WheelSource,
)

__all__ = [
    "CATALOG",
    "DEFAULT_MODEL",
    "DERIVED_MOE",
    "OTHER_SOURCES",
    "SPARSER_MOE",
    "CatalogEntry",
    "DerivedSource",
    "WheelSource",
]
