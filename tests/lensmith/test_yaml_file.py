"""Reading YAML that people write."""

from __future__ import annotations

from pathlib import Path

import pytest

from lensmith.errors import InputError
from lensmith.yaml_file import parse_scalar, read_yaml


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "some.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_content_and_the_line_of_every_key(tmp_path: Path) -> None:
    file = read_yaml(write(tmp_path, "# a comment\none: 1\ntwo:\n  three: [4, 5]\n  six: yes it is\n"))
    assert file.content == {"one": 1, "two": {"three": [4, 5], "six": "yes it is"}}
    assert file.lines == {"one": 2, "two": 3, "two.three": 4, "two.six": 5}


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    assert read_yaml(write(tmp_path, b"\xef\xbb\xbfone: 1\n")).content == {"one": 1}


def test_an_empty_file_is_an_empty_mapping(tmp_path: Path) -> None:
    assert read_yaml(write(tmp_path, "# nothing yet\n")).content == {}


def test_every_duplicate_is_told_with_both_lines(tmp_path: Path) -> None:
    path = write(tmp_path, "a: 1\nb:\n  c: 2\n  c: 3\na: 4\n")
    with pytest.raises(InputError) as caught:
        read_yaml(path)
    assert [str(problem) for problem in caught.value.problems] == [
        f"{path}:4 b.c: is given twice (the first is on line 3)",
        f"{path}:5 a: is given twice (the first is on line 1)",
    ]


def test_an_alias_bomb_is_refused_without_being_built(tmp_path: Path) -> None:
    bomb = 'a0: &a0 "x"\n' + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 40))
    path = write(tmp_path, bomb)
    with pytest.raises(InputError, match="aliases are not allowed") as caught:
        read_yaml(path)
    assert caught.value.problems[0].where == f"{path}:2"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [1, 2\n", "is not YAML"),
        ("a: b: c\n", "is not YAML"),
        ("a: \x00\n", "is not YAML"),
        ("a: 1\n---\nb: 2\n", "is not YAML"),
        ("a: !!python/object/apply:os.system [ls]\n", "the tag .*os.system is not allowed"),
        ("a: !!python/name:os.system\n", "is not YAML"),
        ("a: 2026-13-01\n", "not what it looks like"),
        ("a: !!int seven\n", "not what it looks like"),
        ("a: " + "[" * 500 + "]" * 500, "nested too deeply"),
        ("- 1\n- 2\n", "keys with values are expected"),
        (b"a: \xff\n", "cannot be read"),
    ],
)
def test_what_is_not_a_yaml_mapping_is_one_clear_error(tmp_path: Path, text: str | bytes, says: str) -> None:
    with pytest.raises(InputError, match=says):
        read_yaml(write(tmp_path, text))


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_yaml(tmp_path / "absent.yaml")
    with pytest.raises(InputError, match="cannot be read"):
        read_yaml(tmp_path)


def test_scalars_of_the_command_line() -> None:
    assert [parse_scalar(text) for text in ("2", "0.5", "true", "null", "text")] == [
        2,
        0.5,
        True,
        None,
        "text",
    ]
    with pytest.raises(ValueError, match="flow sequence"):
        parse_scalar("[1, 2")
