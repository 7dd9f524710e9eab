"""Artifacts to and from stores: whole or not at all, under the same id."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from lensmith.artifact import MANIFEST, Artifact, FileEntry, Kind, content_id
from lensmith.cli.main import main
from lensmith.dataset import READS_LOG
from lensmith.errors import InputError, IntegrityError
from lensmith.files import digest_json
from lensmith.home import Home
from lensmith.transfer import Sent, pull, push

ADDRESS = "memory://bucket/one"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def other(tmp_path: Path) -> Home:
    return Home(tmp_path / "other")


def make(home: Home, text: str = "one", kind: Kind = "dataset", key: str = "") -> Artifact:
    with home.create(kind, key or digest_json(text), {}) as draft:
        (draft.path / "data").mkdir()
        (draft.path / "data/train.arrow").write_text(text * 1000)
        (draft.path / "README.md").write_text("a card")
        draft.body["text"] = text
        draft.record["seconds"] = 1
    return draft.artifact


def test_pushed_and_pulled_it_is_the_same(home: Home, other: Home, memory: MemoryFileSystem) -> None:
    artifact = make(home)
    assert push(home, artifact, ADDRESS) == Sent(files=2, already=0)
    assert push(home, artifact, ADDRESS) == Sent(files=0, already=2)
    pulled = pull(other, ADDRESS)
    assert (pulled.manifest, pulled.record()) == (artifact.manifest, artifact.record())
    assert other.verify(pulled) == [pulled]
    assert other.resolve(artifact.short).path == pulled.path
    assert pull(other, ADDRESS).path == pulled.path
    assert not any((other.root / "work").iterdir())


def test_through_the_command_line(home: Home, other: Home, tmp_path: Path) -> None:
    artifact, address = make(home), f"file://{tmp_path}/store/deep/one"
    assert main(["push", artifact.short, address, "--home", str(home.root)]) == 0
    assert main(["pull", address, "--home", str(other.root)]) == 0
    assert other.resolve(artifact.id).manifest == artifact.manifest
    assert main(["pull", f"file://{tmp_path}/store", "--home", str(other.root)]) == 2


def test_a_killed_push_is_not_whole_and_the_next_one_finishes_it(
    home: Home, other: Home, memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = make(home)

    def die(self: object, path: str, value: bytes) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "pipe_file", die)
        with pytest.raises(KeyboardInterrupt):
            push(home, artifact, ADDRESS)
    with pytest.raises(InputError, match="no whole artifact"):
        pull(other, ADDRESS)
    # Killed within the manifest itself.
    memory.pipe(f"/bucket/one/{MANIFEST}", (artifact.path / MANIFEST).read_bytes()[:-40])
    with pytest.raises(InputError, match="no whole artifact"):
        pull(other, ADDRESS)
    assert push(home, artifact, ADDRESS) == Sent(files=0, already=2)
    assert pull(other, ADDRESS).id == artifact.id


def test_a_flipped_byte_is_refused_and_sent_again(home: Home, other: Home, memory: MemoryFileSystem) -> None:
    artifact = make(home)
    push(home, artifact, ADDRESS)
    whole = memory.cat_file("/bucket/one/data/train.arrow")
    memory.pipe("/bucket/one/data/train.arrow", b"X" + whole[1:])
    with pytest.raises(IntegrityError) as caught:
        pull(other, ADDRESS)
    assert [problem.where for problem in caught.value.problems] == ["data/train.arrow"]
    assert other.all() == []
    assert push(home, artifact, ADDRESS) == Sent(files=1, already=1)
    assert pull(other, ADDRESS).id == artifact.id


def test_what_is_damaged_here_is_not_pushed(home: Home, memory: MemoryFileSystem) -> None:
    artifact = make(home)
    (artifact.path / "README.md").write_text("another")
    with pytest.raises(IntegrityError, match="did not come whole"):
        push(home, artifact, ADDRESS)
    assert not memory.exists(f"/bucket/one/{MANIFEST}")


def test_a_missing_or_longer_file_is_refused(home: Home, other: Home, memory: MemoryFileSystem) -> None:
    push(home, make(home), ADDRESS)
    memory.rm("/bucket/one/README.md")
    memory.pipe("/bucket/one/data/train.arrow", b"one" * 1000 + b"more")
    with pytest.raises(IntegrityError) as caught:
        pull(other, ADDRESS)
    assert {problem.where for problem in caught.value.problems} == {"README.md", "data/train.arrow"}


@pytest.mark.parametrize("change", [{"key": "../../evil"}, {"body": {"text": "other"}}, {"id": "0" * 64}])
def test_a_changed_manifest_is_refused(
    home: Home, other: Home, memory: MemoryFileSystem, change: dict[str, object]
) -> None:
    push(home, make(home), ADDRESS)
    path = f"/bucket/one/{MANIFEST}"
    memory.pipe(path, json.dumps(json.loads(memory.cat_file(path)) | change).encode())
    with pytest.raises(IntegrityError, match="changed"):
        pull(other, ADDRESS)
    assert other.all() == []


def test_a_manifest_that_names_a_file_outside_is_refused(
    home: Home, other: Home, memory: MemoryFileSystem
) -> None:
    made = make(home).manifest
    files = [FileEntry(path="../evil", sha256=entry.sha256, bytes=entry.bytes) for entry in made.files[:1]]
    changed = made.model_copy(
        update={"files": files, "id": content_id(made.kind, made.inputs, files, made.body)}
    )
    memory.pipe(f"/bucket/one/{MANIFEST}", changed.model_dump_json().encode())
    with pytest.raises(InputError, match="out of its folder"):
        pull(other, ADDRESS)
    assert not list(other.root.rglob("evil"))


def test_another_artifact_or_file_there_is_left_alone(home: Home, memory: MemoryFileSystem) -> None:
    push(home, make(home), ADDRESS)
    with pytest.raises(InputError, match="cannot be pushed there"):
        push(home, make(home, "two"), ADDRESS)
    memory.pipe("/bucket/two/notes.txt", b"mine")
    with pytest.raises(InputError, match="cannot be pushed there"):
        push(home, make(home), "memory://bucket/two")
    assert memory.find("/bucket/two") == ["/bucket/two/notes.txt"]


def test_another_artifact_of_the_key_is_not_replaced(
    home: Home, other: Home, memory: MemoryFileSystem
) -> None:
    push(home, make(home), ADDRESS)
    kept = make(other, "another", key=digest_json("one"))
    with pytest.raises(InputError, match="same key"):
        pull(other, ADDRESS)
    assert other.all() == [kept]


def test_a_base_holds_nothing_to_push(home: Home, memory: MemoryFileSystem) -> None:
    with pytest.raises(InputError, match="cannot be pushed"):
        push(home, make(home, kind="base"), ADDRESS)


def test_who_copies_the_exam_is_logged(home: Home, memory: MemoryFileSystem) -> None:
    exam = make(home, kind="held_out")
    push(home, exam, ADDRESS)
    logged = json.loads((home.root / READS_LOG).read_text())
    assert (logged["held_out"], logged["reason"]) == (exam.id, f"pushed to {ADDRESS}")


def test_a_killed_pull_goes_on(
    home: Home, other: Home, memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = make(home)
    push(home, artifact, ADDRESS)
    memory.rm("/bucket/one/data/train.arrow")
    with pytest.raises(IntegrityError):
        pull(other, ADDRESS)
    push(home, artifact, ADDRESS)
    opened: list[str] = []
    before = MemoryFileSystem._open

    def note(self: MemoryFileSystem, path: str, *rest: object, **named: object) -> object:
        opened.append(path)
        return before(self, path, *rest, **named)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(MemoryFileSystem, "_open", note)
    assert pull(other, ADDRESS).id == artifact.id
    assert "/bucket/one/data/train.arrow" in opened
    assert "/bucket/one/README.md" not in opened
