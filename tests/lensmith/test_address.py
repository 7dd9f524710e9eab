"""What may be an address, and what is refused of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from lensmith.address import checked_address, is_address, open_store, plain_name, reaching
from lensmith.data_settings import SourceSpec
from lensmith.errors import InputError, Problem


@pytest.mark.parametrize(
    "text", ["s3://bucket/forms", "zip://a.jsonl::file:///b.zip", "simplecache::gs://b/c"]
)
def test_addresses_stay_as_they_are(text: str) -> None:
    assert is_address(text)
    assert checked_address(text) == text
    assert SourceSpec(path=text).path == text


@pytest.mark.parametrize("text", ["forms/labels.jsonl", "/data/forms", "a:b", "./s3//x", "C:/data"])
def test_paths_are_paths(text: str) -> None:
    assert not is_address(text)
    assert SourceSpec(path=text).path == Path(text)
    assert SourceSpec(path=Path(text)).local == Path(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("https://example.org/labels.jsonl", "by https"),
        ("zip://a::HTTP://example.org/b.zip", "by http"),
        ("sftp://me:secret@host/forms", "password"),
        ("zip://a.jsonl::b.zip", "no address"),
    ],
)
def test_what_is_no_address_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        SourceSpec(path=text)
    with pytest.raises(InputError):
        open_store(text)


def test_an_address_that_was_not_fetched_is_no_path() -> None:
    with pytest.raises(InputError, match="not fetched"):
        _ = SourceSpec(path="s3://bucket/forms").local


def test_a_store_without_its_library_says_what_to_install() -> None:
    with pytest.raises(InputError) as caught:
        open_store("s3://bucket/forms")
    assert caught.value.problems == (
        Problem("the store's library is not installed", "s3://bucket/forms", "Install s3fs to access S3"),
    )
    with pytest.raises(InputError, match="cannot be used"):
        open_store("nosuch://bucket/forms")


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../labels", "a/../../b", "a//b", "a/.", "a\\b", "a\0b"])
def test_names_from_outside_stay_in_their_folder(name: str) -> None:
    with pytest.raises(InputError, match="out of its folder"):
        plain_name(name)


def test_whatever_a_store_raises_is_told_with_its_address() -> None:
    with pytest.raises(InputError) as caught, reaching("s3://bucket"):
        raise RuntimeError("denied")
    assert caught.value.problems == (Problem("RuntimeError: denied", "s3://bucket"),)
