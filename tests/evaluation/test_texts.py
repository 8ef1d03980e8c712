import hashlib

import pytest

from backend.errors import UserError
from backend.evaluation.texts import WIKITEXT2_SHA256, join_wikitext_rows, load_text


@pytest.mark.real_data
def test_wikitext2_is_the_raw_file_and_its_rows_join_to_the_same_bytes(data_root):
    text = load_text("wikitext2", data_root)
    assert text.sha256 == WIKITEXT2_SHA256
    rows = [line + "\n" if line.strip() else "" for line in text.content.split("\n")[:-1]]
    assert len(rows) == 4358
    assert join_wikitext_rows(rows) == text.content.encode()


def test_prose_ships_with_python_and_is_long_enough_for_the_main_job():
    text = load_text("prose")
    assert text.content == load_text("prose").content
    assert len(text.content.split()) > 50_000


def test_any_text_file_can_be_read(tmp_path):
    (tmp_path / "mine.txt").write_text("Grüße", encoding="utf-8")
    text = load_text(str(tmp_path / "mine.txt"))
    assert text.content == "Grüße"
    assert text.sha256 == hashlib.sha256("Grüße".encode()).hexdigest()


def test_wrong_texts_get_a_sentence(tmp_path):
    (tmp_path / "latin1.txt").write_bytes("Grüße".encode("latin-1"))
    with pytest.raises(UserError, match="is not UTF-8 text"):
        load_text(str(tmp_path / "latin1.txt"))
    with pytest.raises(UserError, match="no text or text file called 'wikitext'; did you mean 'wikitext2'"):
        load_text("wikitext")


def test_without_data_root_and_hub_the_message_says_what_to_do(monkeypatch):
    def offline(*_args, **_kwargs):
        raise OSError("no route")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", offline)
    with pytest.raises(UserError, match=r"--data-root .* text prose"):
        load_text("wikitext2", None)
