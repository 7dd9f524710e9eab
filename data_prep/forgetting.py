"""The rows that must not be used again: decisions in `<home>/forgotten.jsonl`, which only grows.

The list does not say whom it is about: a value is kept as a salted SHA-256. Whoever has the list and a guess
can check the guess, so it is as confidential as the home it lies in.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from data_prep.conditions import Condition, Facts
from data_prep.refusal import Flaw
from lensmith.artifact import Artifact, Kind
from lensmith.decision import check_decision
from lensmith.errors import IntegrityError, Problem
from lensmith.files import digest_json, sync_file
from lensmith.home import Home
from lensmith.sample import Sample

FILE = "forgotten.jsonl"
FLAW = Flaw(
    "forgotten",
    "it was decided that rows like this one are not used again",
    "leave it out of what you hand over, and ask whoever keeps this data about your copy",
)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Sealed(_Part):
    """A condition without its value. sha256: of the salt's bytes and the ASCII JSON text [field, value]."""

    field: str
    sha256: str


class Decision(_Part):
    """Rows that meet every condition of `where` are refused from now on. salt: 16 random bytes, in hex."""

    schema_version: Literal[1] = 1
    act: Literal["forget"] = "forget"
    at: str
    who: str
    why: str
    salt: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    where: Annotated[list[Sealed], Field(min_length=1)]


class Removal(_Part):
    """Artifact `id` was removed, or was about to be, because of rows that meet `where`.

    splits: where it held them ("train", ...), empty where it only quoted them.
    """

    schema_version: Literal[1] = 1
    act: Literal["remove"] = "remove"
    at: str
    who: str
    why: str
    salt: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    where: Annotated[list[Sealed], Field(min_length=1)]
    kind: Kind
    id: str
    splits: list[str]


_ENTRY: TypeAdapter[Decision | Removal] = TypeAdapter(
    Annotated[Decision | Removal, Field(discriminator="act")]
)


class Forgotten:
    """The decisions of a home. Asking about a row takes as many lookups as there are sets of fields."""

    def __init__(self, decisions: Iterable[Decision]) -> None:
        self._known: dict[tuple[str, tuple[str, ...]], set[tuple[str, ...]]] = {}
        self.salt = ""
        for each in decisions:
            where = sorted((sealed.field, sealed.sha256) for sealed in each.where)
            fields, digests = zip(*where, strict=True)
            self._known.setdefault((each.salt, fields), set()).add(digests)
            self.salt = each.salt

    @classmethod
    def load(cls, home_root: Path) -> Forgotten:
        """The list in the home at `home_root`; empty where there is none.

        Raises IntegrityError for a line that cannot be read: what it says must not be lost unseen.
        """
        return cls(entry for entry in read_entries(home_root) if isinstance(entry, Decision))

    @property
    def digest(self) -> str:
        """What a preparation's key needs: changes with what is refused, not with who said so; "" for none."""
        if not self._known:
            return ""
        return digest_json(
            [[salt, fields, sorted(known)] for (salt, fields), known in sorted(self._known.items())]
        )

    def flaw(self, sample: Sample) -> Flaw | None:
        """Why a row is not taken, None where nobody decided that. It does not say which decision."""
        return FLAW if self._known and self._meant(Facts.of(sample)) else None

    def knows(self, conditions: Sequence[Condition]) -> bool:
        """Whether exactly these conditions, in the order of their fields, were decided."""
        fields = tuple(each.field for each in conditions)
        return any(
            tuple(seal(salt, each).sha256 for each in conditions) in known
            for (salt, theirs), known in self._known.items()
            if theirs == fields
        )

    def _meant(self, facts: Facts) -> bool:
        for (salt, fields), known in self._known.items():
            values = [(field, facts.value(field)) for field in fields]
            digests = [_digest(salt, field, value) for field, value in values if value is not None]
            if len(digests) == len(fields) and tuple(digests) in known:
                return True
        return False


def seal(salt: str, condition: Condition) -> Sealed:
    """The condition as the list keeps it."""
    return Sealed(field=condition.field, sha256=_digest(salt, condition.field, condition.value))


def _digest(salt: str, field: str, value: str) -> str:
    # Escaped to ASCII: half a surrogate pair in somebody's text has no UTF-8.
    return hashlib.sha256(bytes.fromhex(salt) + json.dumps([field, value]).encode()).hexdigest()


def read_entries(home_root: Path) -> list[Decision | Removal]:
    """Every line of the list, oldest first."""
    path = home_root / FILE
    if not path.is_file():
        return []
    entries: list[Decision | Removal] = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            entries.append(_ENTRY.validate_json(line))
        except ValidationError as error:
            mend = "restore the list from a backup; a last line cut short: remove it and decide again"
            raise IntegrityError(
                f"{path} cannot be read as the list of what is forgotten",
                [Problem(error.errors()[0]["msg"], f"line {number}", mend)],
            ) from error
    return entries


def record_decision(home: Home, conditions: Sequence[Condition], who: str, why: str) -> bool:
    """Refuse rows that meet all of `conditions` from now on; False where that was decided before.

    It is on the disk when this returns. Raises InputError without a person and a reason.
    """
    check_decision(who, why)
    with home.locked("forgotten"):
        forgotten = Forgotten.load(home.root)
        if forgotten.knows(conditions):
            return False
        salt = forgotten.salt or secrets.token_hex(16)
        where = [seal(salt, each) for each in conditions]
        _append(home, Decision(at=_now(), who=who, why=why, salt=salt, where=where))
    return True


def record_removal(
    home: Home,
    conditions: Sequence[Condition],
    artifact: Artifact,
    splits: Sequence[str],
    who: str,
    why: str,
) -> None:
    """Note that `artifact` is removed, before it is. The decision on `conditions` was recorded before."""
    with home.locked("forgotten"):
        salt = Forgotten.load(home.root).salt
        where = [seal(salt, each) for each in conditions]
        _append(
            home,
            Removal(
                at=_now(), who=who, why=why, salt=salt, where=where, kind=artifact.kind, id=artifact.id,
                splits=list(splits),
            ),
        )  # fmt: skip


def removed_before(home_root: Path, conditions: Sequence[Condition]) -> list[Removal]:
    """The removals because of exactly these conditions: what they left behind still has its children."""
    return [
        entry
        for entry in read_entries(home_root)
        if isinstance(entry, Removal) and entry.where == [seal(entry.salt, each) for each in conditions]
    ]


def _append(home: Home, entry: Decision | Removal) -> None:
    line = json.dumps(entry.model_dump(mode="json"), ensure_ascii=False, sort_keys=True) + "\n"
    handle = os.open(home.root / FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(handle, line.encode())
        os.fsync(handle)
    finally:
        os.close(handle)
    sync_file(home.root)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
