"""What another's card states is carried on by the names that hubs have, and nothing else of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune.stated import Stated, read_stated


def test_licence_and_data_are_read(tmp_path: Path) -> None:
    card = "---\nlicense: cc-by-nc-4.0\ndatasets:\n- acme/receipts\n- acme/bills\n---\n\n# Receipts\n"
    (tmp_path / "README.md").write_text(card)
    assert read_stated(tmp_path) == Stated("cc-by-nc-4.0", ["acme/receipts", "acme/bills"])


@pytest.mark.parametrize(
    ("front", "stated"),
    [
        ("license: other\nlicense_name: gemma\n", Stated("gemma")),
        ("license: [mit, apache-2.0]\ndatasets: acme/bills\n", Stated("mit and apache-2.0", ["acme/bills"])),
        ("license: 'mit | trusted |\n\n# A heading'\n", Stated()),
        ("license: {mit: 1}\ndatasets: [1, null, a b]\n", Stated()),
        ("license: [mit\n", Stated()),
        ("license: &a mit\nlicense_name: *a\n", Stated()),
        ("base_model: acme/model\n", Stated()),
    ],
)
def test_what_is_no_name_is_not_stated(tmp_path: Path, front: str, stated: Stated) -> None:
    (tmp_path / "README.md").write_text(f"---\n{front}---\n")
    assert read_stated(tmp_path) == stated


@pytest.mark.parametrize("card", [b"", b"# A card\n\nlicense: mit\n", b"\xff\xfe---\n", b"---\nlicense: mit"])
def test_a_card_without_front_matter_states_nothing(tmp_path: Path, card: bytes) -> None:
    (tmp_path / "README.md").write_bytes(card)
    assert read_stated(tmp_path) == Stated()


def test_no_card_states_nothing(tmp_path: Path) -> None:
    assert read_stated(tmp_path) == Stated()
