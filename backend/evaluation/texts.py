"""Named evaluation texts: from a local data root, the Hugging Face hub, CPython itself, or any text file.

Nothing here is committed: a text is read where it lies, and the sha256 of its bytes goes with each result.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from backend.errors import UserError
from backend.registry import Registry, did_you_mean

WIKITEXT2_SHA256 = "173c87a53759e0201f33e0ccf978e510c2042d7f2cb78229d9a50d79b9e7dd08"


@dataclass(frozen=True)
class Text:
    """A text that was really read.

    Attributes:
        name: Its name, or the path it was read from.
        content: The text.
        sha256: Hash of its bytes in UTF-8.
    """

    name: str
    content: str
    sha256: str

    @classmethod
    def of(cls, name: str, raw: bytes) -> Text:
        """Return the text of these bytes; bytes that are not UTF-8 raise ``UserError``."""
        try:
            content = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{name} is not UTF-8 text (byte {error.start}); save it as UTF-8.") from error
        return cls(name, content, hashlib.sha256(raw).hexdigest())


@dataclass(frozen=True)
class NamedText:
    """A text known by name.

    Attributes:
        title: Its name for people.
        licence: The licence of the text.
        read: Reads it, given the local data root (None if there is none).
    """

    title: str
    licence: str
    read: Callable[[Path | None], bytes]


TEXTS: Registry[NamedText] = Registry("text")
"""Every named text."""
QUESTIONS: Registry[NamedText] = Registry("set of questions")
"""Every named set of questions, as a CSV file with a column ``Question``."""


def load_text(name: str, data_root: Path | None = None) -> Text:
    """Return the text called ``name``, or the file of that path.

    Args:
        name: A name of ``TEXTS`` or ``QUESTIONS``, or a path.
        data_root: Folder with local data sets, looked at before the hub.

    Raises:
        UserError: No such text or file, it is no UTF-8, or neither data root nor hub has it.
    """
    for named in (TEXTS, QUESTIONS):
        if name in named:
            return Text.of(name, named[name].read(data_root))
    path = Path(name).expanduser()
    if path.is_file():
        try:
            return Text.of(str(path), path.read_bytes())
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}).") from error
    raise UserError(
        f"There is no text or text file called '{name}'; {did_you_mean(name, [*TEXTS, *QUESTIONS])}"
    )


def _wikitext2(data_root: Path | None) -> bytes:
    local = data_root / "wikitext2" / "wiki.test.raw" if data_root else None
    if local is not None and local.is_file():
        return local.read_bytes()
    return _wikitext2_from_hub()


def _wikitext2_train(data_root: Path | None) -> bytes:
    local = data_root / "wikitext2" / "wiki.train.raw.head.txt" if data_root else None
    if local is None or not local.is_file():
        raise UserError(
            "The calibration text wikitext2_train is read from wikitext2/wiki.train.raw.head.txt under a "
            "data root (--data-root or SPARSITY_LENS_DATA); name one, or set calibration=prose, which ships "
            "with Python."
        )
    return local.read_bytes()


def _wikitext2_from_hub() -> bytes:
    import pyarrow.parquet as pq
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # its warnings would stand beside our sentence
    try:
        path = hf_hub_download(
            "Salesforce/wikitext", "wikitext-2-raw-v1/test-00000-of-00001.parquet", repo_type="dataset"
        )
    except (OSError, ValueError) as error:  # what huggingface_hub raises when it is offline or refused
        raise UserError(
            "WikiText-2 is neither under a data root (--data-root or SPARSITY_LENS_DATA) nor to be had from "
            "the Hugging Face hub; connect, name a data root, or take the text prose, which ships with "
            "Python."
        ) from error
    raw = join_wikitext_rows(pq.read_table(path)["text"].to_pylist())
    if hashlib.sha256(raw).hexdigest() != WIKITEXT2_SHA256:
        raise UserError(
            "WikiText-2 from the hub is not the raw test file (its sha256 differs); use a data root."
        )
    return raw


def join_wikitext_rows(rows: list[str]) -> bytes:
    """Rebuild the raw file of WikiText from the rows of its data set.

    The data set empties the blank lines (" " and a line feed) of the file; other joins give other tokens
    and another perplexity.
    """
    return "".join(row or " \n" for row in rows).encode()


def _prose(_data_root: Path | None) -> bytes:
    """Return the language reference that ships inside CPython (``pydoc_data.topics``), topics in order."""
    from pydoc_data.topics import topics

    return "\n".join(topics[name] for name in sorted(topics)).encode()


def _truthfulqa(data_root: Path | None) -> bytes:
    local = data_root / "eval" / "TruthfulQA.csv" if data_root else None
    if local is None or not local.is_file():
        raise UserError(
            "TruthfulQA is read from eval/TruthfulQA.csv under a data root (--data-root or "
            "SPARSITY_LENS_DATA); name one, or give the path of a CSV file with a column 'Question'."
        )
    return local.read_bytes()


TEXTS.add("wikitext2", NamedText("WikiText-2 raw, test", "CC BY-SA 3.0 and GFDL", _wikitext2))
TEXTS.add(
    "wikitext2_train",
    NamedText("WikiText-2 raw, start of train (calibration)", "CC BY-SA 3.0 and GFDL", _wikitext2_train),
)
TEXTS.add("prose", NamedText("Python's language reference (ships with Python)", "PSF-2.0", _prose))
QUESTIONS.add("truthfulqa", NamedText("TruthfulQA, 817 questions", "Apache-2.0", _truthfulqa))
