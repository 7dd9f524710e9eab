"""The registry: moves are all or nothing, unseen overwrites do not happen, the log only grows."""

from __future__ import annotations

import multiprocessing
import sqlite3
from pathlib import Path

import pytest

from lensmith.errors import GateRefused, InputError, IntegrityError
from lensmith.home import Home
from serving.registry import REGISTRY_FILE, SCHEMA, Act, Entry, Registry, parse_reference


def entry(letter: str) -> Entry:
    return Entry(letter * 64, "forms", letter * 64, letter * 64)


def move(registry: Registry, letter: str, kind: str = "promotion") -> Act:
    assert kind in ("promotion", "rollback")
    expected = registry.find_current("forms", "production")
    return registry.move(
        "promotion" if kind == "promotion" else "rollback",
        entry(letter),
        "production",
        "ada",
        "why",
        expected,
    )


def test_an_empty_registry(home: Home) -> None:
    with Registry.open(home) as registry:
        assert registry.find_current("forms", "production") is None
        assert registry.previous("forms", "production") is None
        assert registry.acts() == []
        with pytest.raises(InputError, match="nothing was promoted to forms@production"):
            registry.current("forms", "production")


def test_a_move_is_logged_with_before_and_after(home: Home) -> None:
    with Registry.open(home) as registry:
        move(registry, "a")
        act = move(registry, "b")
        assert (act.before, act.release, act.who, act.why) == ("a" * 64, "b" * 64, "ada", "why")
    with Registry.open(home) as registry:
        assert registry.current("forms", "production") == act
        assert [each.seq for each in registry.acts("forms", "production")] == [1, 2]
        assert registry.acts("others") == []
        assert registry.entry("a" * 64) == entry("a")


def test_channels_and_names_do_not_mix(home: Home) -> None:
    with Registry.open(home) as registry:
        move(registry, "a")
        registry.move("promotion", entry("b"), "staging", "ada", "try", None)
        registry.move("promotion", Entry("c" * 64, "cards", "c", "c"), "production", "bob", "new", None)
        assert registry.current("forms", "production").release == "a" * 64
        assert registry.current("forms", "staging").release == "b" * 64
        with pytest.raises(InputError, match="there is forms@staging"):
            registry.current("cards", "staging")


def test_a_promotion_stacks_and_a_rollback_takes_off(home: Home) -> None:
    with Registry.open(home) as registry:
        previous: list[str | None] = []
        for letter, kind in [("a", "promotion"), ("b", "promotion"), ("c", "promotion"), ("b", "rollback")]:
            move(registry, letter, kind)
            previous.append(registry.previous("forms", "production"))
        move(registry, "d")
        previous.append(registry.previous("forms", "production"))
        move(registry, "b", "rollback")
        move(registry, "a", "rollback")
        previous.append(registry.previous("forms", "production"))
    a, b = "a" * 64, "b" * 64
    assert previous == [None, a, b, a, b, None]


def test_a_decision_on_an_old_state_is_refused(home: Home) -> None:
    with Registry.open(home) as first, Registry.open(home) as second:
        seen = second.find_current("forms", "production")
        move(first, "a")
        with pytest.raises(GateRefused, match="ada put release aaaaaaaaaaaa there"):
            second.move("promotion", entry("b"), "production", "bob", "why", seen)
        assert second.current("forms", "production").release == "a" * 64
        assert len(second.acts()) == 1


def test_there_and_back_again_is_a_change_too(home: Home) -> None:
    """The release alone does not tell: between looking and moving it may have gone and come back."""
    with Registry.open(home) as registry:
        seen = move(registry, "a")
        move(registry, "b")
        move(registry, "a", "rollback")
        with pytest.raises(GateRefused, match="changed meanwhile"):
            registry.move("promotion", entry("c"), "production", "bob", "why", seen)


@pytest.mark.parametrize(
    "statement", ["DELETE FROM acts", "UPDATE acts SET who = 'eve'", "UPDATE acts SET after = before"]
)
def test_the_log_only_grows(home: Home, statement: str) -> None:
    with Registry.open(home) as registry:
        move(registry, "a")
    with sqlite3.connect(home.root / REGISTRY_FILE) as connection, pytest.raises(sqlite3.IntegrityError):
        connection.execute(statement)


@pytest.mark.parametrize(("who", "why"), [("", "why"), ("  ", "why"), ("ada", "")])
def test_an_act_without_person_or_reason_cannot_be_stored(home: Home, who: str, why: str) -> None:
    with Registry.open(home) as registry:
        with pytest.raises(sqlite3.IntegrityError):
            registry.move("promotion", entry("a"), "production", who, why, None)
        assert registry.acts() == []


def test_a_channel_moved_around_the_log_is_found(home: Home) -> None:
    with Registry.open(home) as registry:
        move(registry, "a")
        move(registry, "b")
    with sqlite3.connect(home.root / REGISTRY_FILE) as connection:
        connection.execute("UPDATE channels SET act = 1")
    with pytest.raises(IntegrityError, match="changed around its log"), Registry.open(home):
        pass


def test_a_file_that_is_no_registry_is_refused(home: Home) -> None:
    home.root.mkdir(parents=True)
    (home.root / REGISTRY_FILE).write_bytes(b"not a database at all, but long enough to be read as one" * 40)
    with pytest.raises(IntegrityError, match="cannot be read as a registry"), Registry.open(home):
        pass


def test_a_registry_of_schema_1_keeps_its_log(home: Home) -> None:
    """Its acts do not say which policy they passed; those made from now on do."""
    with Registry.open(home) as registry:
        move(registry, "a")
    with sqlite3.connect(home.root / REGISTRY_FILE) as connection:
        connection.execute("ALTER TABLE acts DROP COLUMN policy")
        connection.execute("PRAGMA user_version = 1")
    with Registry.open(home) as registry:
        expected = registry.current("forms", "production")
        act = registry.move("promotion", entry("b"), "production", "ada", "why", expected, "p" * 64)
        assert [each.policy for each in registry.acts()] == [None, "p" * 64]
        assert registry.current("forms", "production") == act


def test_a_newer_schema_is_refused(home: Home) -> None:
    with Registry.open(home):
        pass
    with sqlite3.connect(home.root / REGISTRY_FILE) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    with pytest.raises(InputError, match="newer Lensmith"), Registry.open(home):
        pass


def test_it_is_crash_safe_by_its_settings(home: Home) -> None:
    with Registry.open(home) as registry:
        execute = registry._connection.execute
        assert execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert execute("PRAGMA synchronous").fetchone()[0] == 2
        assert execute("PRAGMA foreign_keys").fetchone()[0] == 1


@pytest.mark.parametrize("text", ["forms", "forms@", "@production", "forms@prod", "forms@production@x"])
def test_bad_references(text: str) -> None:
    with pytest.raises(InputError):
        parse_reference(text)


def test_references() -> None:
    assert parse_reference("bank-forms@production") == ("bank-forms", "production")
    assert parse_reference("bank-forms@staging") == ("bank-forms", "staging")


def _open_and_move(root: Path, letter: str, start: multiprocessing.synchronize.Barrier, told: object) -> None:
    start.wait()
    try:
        with Registry.open(Home(root)) as registry:
            registry.move("promotion", entry(letter), "production", letter, "first", None)
        outcome = "won"
    except GateRefused as error:
        outcome = str(error)
    told.put((letter, outcome))  # pyright: ignore[reportAttributeAccessIssue]


def test_six_processes_make_and_move_at_once(home: Home) -> None:
    """None finds half a schema; one wins, five are told."""
    context = multiprocessing.get_context("spawn")
    start, told = context.Barrier(6), context.Queue()
    children = [
        context.Process(target=_open_and_move, args=(home.root, each, start, told)) for each in "abcdef"
    ]
    for child in children:
        child.start()
    outcomes = dict(told.get(timeout=60) for _ in children)
    for child in children:
        child.join(60)
    winners = [letter for letter, outcome in outcomes.items() if outcome == "won"]
    assert len(winners) == 1
    assert all(
        "changed meanwhile" in outcome for letter, outcome in outcomes.items() if letter not in winners
    )
    with Registry.open(home) as registry:
        assert registry.current("forms", "production").who == winners[0]
        assert len(registry.acts()) == 1
