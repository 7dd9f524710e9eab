"""lensmith forget: through lineage to all that rows reached, and the dataset without them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_prep.forgetting import FILE
from finetune.evaluation.evaluate import evaluate
from lensmith.artifact import Artifact, list_files
from lensmith.cli.forget import reach, removal
from lensmith.cli.main import main
from lensmith.dataset import READS_LOG, read_held_out, read_split, split_file
from lensmith.files import digest_json
from lensmith.home import Home
from lensmith.row_file import Row, write_rows
from lensmith.sample import Origin
from serving.gates import read_policy
from serving.promote import promote
from tests.conftest import ROOT, write_recipe
from tests.data_prep.folder import Folder
from tests.release_artifacts import World, form_rows, label, wrong_every

BY = ("--who", "dpo", "--why", "asked to")


def labelled(row: Row, labeller: str) -> Row:
    return replace(row, sample=replace(row.sample, origin=Origin(source="branch", labeller=labeller)))


class Forms(World):
    """Ada labelled form-050 to form-052 (train) and form-064 (validation), Bob form-003 (held out, which the
    tuned model gets wrong) and form-004; Cleo the rest."""

    def __init__(self, home: Home) -> None:
        super().__init__(home)
        for each in (self.dataset, self.held_out, self.intake):
            shutil.rmtree(each.path)
        names = {50: "ada", 51: "ada", 52: "ada", 64: "ada", 3: "bob", 4: "bob"}
        rows = [labelled(row, names.get(number, "cleo")) for number, row in enumerate(form_rows(68, 2))]
        self.rows = rows[:48]
        self.held_out = self.make_held_out("exam", self.rows)
        self.dataset = self.make_dataset("first", rows[48:64], rows[64:], self.held_out)
        blurred = b'{"row": "blurred-1", "code": "image_unreadable"}\n'
        self.intake = self.make_intake("intake", self.dataset, {"refused.jsonl": blurred})

    def make_dataset(
        self, name: str, train: Sequence[Row], validation: Sequence[Row], held_out: Artifact
    ) -> Artifact:
        with self.home.create("dataset", digest_json(["dataset", name]), {}) as draft:
            write_rows(draft.path / split_file("train"), train)
            write_rows(draft.path / split_file("validation"), validation)
            draft.body.update(
                held_out=held_out.id,
                rows={"train": len(train), "validation": len(validation), "held_out": 48},
                groups={"train": 8, "validation": 2, "held_out": 24},
            )
        return draft.artifact

    def to_production(self, release: Artifact) -> None:
        policy = read_policy(ROOT / "recipes/gates/default.yaml")
        promote(self.home, release, "production", "manager", "better", policy)


@pytest.fixture
def world(home: Home) -> Forms:
    """A release that gets every third form wrong, in production."""
    world = Forms(home)
    world.to_production(world.release("one", wrong_every(3)))
    return world


def forget(home: Home, *arguments: object) -> int:
    return main(["forget", *map(str, arguments), *BY, "--home", str(home.root)])


def told(home: Home, capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    capsys.readouterr()
    assert forget(home, *arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def reached(answer: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [each for each in answer["made_from_them"] if each["kind"] == kind]


def kinds(home: Home) -> set[str]:
    return {each.kind for each in home.all()}


def test_what_learned_from_rows_is_found_two_steps_down_and_in_production(
    home: Home, world: Forms, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = told(home, capsys, "--where", "origin.labeller=ada", "--dry-run")
    held, listed = answer["holds"]
    assert (held["id"], listed["id"]) == (world.dataset.id, world.intake.id)
    assert listed["rows"] == {"listed": ["form-050", "form-051", "form-052", "form-064"]}
    assert held["rows"] == {"train": ["form-050", "form-051", "form-052"], "validation": ["form-064"]}
    assert {each["kind"]: each["learned"] for each in answer["made_from_them"]} == {
        "run": True,
        "model": True,
        "profile": True,
        "release": True,
        "trace": False,
        "report": False,
    }
    assert reached(answer, "release")[0]["channels"] == ["bank-forms@production"]
    assert not any(each["quotes"] for each in answer["made_from_them"])
    assert forget(home, "--where", "origin.labeller=ada", "--dry-run") == 0
    text = capsys.readouterr().out
    assert "3 train, 1 validation: form-050, form-051, form-052, form-064" in text
    assert "bank-forms@production points at it NOW" in text
    assert "there is none to roll back to" in text
    # A look alone decides nothing, but the exam was read, and that is logged.
    assert not (home.root / FILE).exists()
    reads = [json.loads(line)["reason"] for line in (home.root / READS_LOG).read_text().splitlines()]
    assert [each for each in reads if each.endswith("asked to")] == [
        "forget, to find the rows that are meant: asked to"
    ] * 2


def test_a_report_on_validation_rows_quotes_them(
    home: Home, world: Forms, capsys: pytest.CaptureFixture[str]
) -> None:
    """Training rows of the same dataset are not in it."""
    validation = form_rows(68, 2)[64:]
    trace = world.trace(world.model("one"), label, held_out=world.dataset, rows=validation)
    report = evaluate(world.recipe, home, trace, world.dataset, None)
    for where, quoted in (("id=form-064", ["form-064"]), ("id=form-050", [])):
        answer = told(home, capsys, "--where", where, "--dry-run")
        found = {each["id"]: each["quotes"] for each in answer["made_from_them"]}
        assert (found[trace.id], found[report.id]) == (quoted, quoted)


def test_rows_that_are_only_in_the_exam_reach_its_dataset_and_what_quotes_them(
    home: Home, world: Forms, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = told(home, capsys, "--where", "origin.labeller=bob", "--dry-run")
    assert [(each["id"], each["rows"]) for each in answer["holds"]] == [
        (world.held_out.id, {"held_out": ["form-003", "form-004"]})
    ]
    assert [each["id"] for each in reached(answer, "dataset")] == [world.dataset.id]
    assert not any(each["learned"] for each in answer["made_from_them"])
    for kind, count in (("trace", 2), ("report", 1), ("release", 1)):
        found = reached(answer, kind)
        assert len(found) == count
        assert all(set(each["quotes"]) == {"form-003", "form-004"} for each in found)
    assert answer["served"] == [
        {"channel": "bank-forms@production", "release": reached(answer, "release")[0]["id"], "learned": False}
    ]


def test_a_page_is_said_to_quote_only_what_it_shows(
    home: Home, world: Forms, capsys: pytest.CaptureFixture[str]
) -> None:
    # Right in both models: no mistake, nothing mended, not on the page.
    right = world.release("two", label, baseline=world.model("three"), baseline_answer=label)
    answer = told(home, capsys, "--where", "id=form-003", "--dry-run")
    quotes = {each["id"]: each["quotes"] for each in reached(answer, "release")}
    assert quotes.pop(right.id) == []
    assert list(quotes.values()) == [["form-003"]]


def test_a_model_tuned_further_is_found_through_its_weights(
    home: Home, world: Forms, capsys: pytest.CaptureFixture[str]
) -> None:
    first = world.model("one")
    clean = form_rows(80, 2)[70:]
    world.dataset = world.make_dataset("clean", clean[:8], clean[8:], world.held_out)
    world.intake = world.make_intake("clean", world.dataset)
    world.base = world.make_base(list_files(first.path), first.path)
    second = world.model("further")
    answer = told(home, capsys, "--where", "origin.labeller=ada", "--dry-run")
    models = {each["id"]: each["learned"] for each in reached(answer, "model")}
    assert models == {first.id: True, second.id: True}


def test_a_release_without_them_is_not_reached_by_being_compared(
    home: Home, world: Forms, capsys: pytest.CaptureFixture[str]
) -> None:
    old = world.model("one")
    exam = world.make_held_out("clean exam", form_rows(128, 2)[80:])
    world.rows, world.held_out = form_rows(128, 2)[80:], exam
    clean = form_rows(80, 2)[70:]
    world.dataset = world.make_dataset("clean", clean[:8], clean[8:], exam)
    world.intake = world.make_intake("clean", world.dataset)
    new = world.release(
        "clean", lambda number: label(number + 80), baseline=old,
        baseline_answer=lambda number: wrong_every(2)(number + 80),
    )  # fmt: skip
    answer = told(home, capsys, "--where", "origin.labeller=ada", "--dry-run")
    assert new.id not in {each["id"] for each in answer["made_from_them"]}
    world.to_production(new)
    assert told(home, capsys, "--where", "origin.labeller=ada", "--delete")["served"] == []


def test_a_link_that_is_gone_is_known_from_the_release(
    home: Home, world: Forms, capsys: pytest.CaptureFixture[str]
) -> None:
    for each in home.all("run"):
        shutil.rmtree(each.path)
    answer = told(home, capsys, "--where", "origin.labeller=ada", "--dry-run")
    assert [each["learned"] for each in reached(answer, "model")] == [True]
    # And of a release whose files are gone the registry knows the model.
    (release,) = home.all("release")
    shutil.rmtree(release.path)
    for each in world.home.all("model"):
        shutil.rmtree(each.path)
    world.model("one")
    assert forget(home, "--where", "origin.labeller=ada", "--dry-run") == 0
    assert "its files are not here; bank-forms@production points at it NOW" in capsys.readouterr().out


def test_a_rollback_that_leads_to_the_rows_too_is_no_way_out(
    home: Home, world: Forms, capsys: pytest.CaptureFixture[str]
) -> None:
    production = world.model("one")
    world.to_production(world.release("two", label, baseline=production, baseline_answer=wrong_every(3)))
    assert forget(home, "--where", "origin.labeller=ada", "--dry-run") == 0
    assert "which they reached too" in capsys.readouterr().out


def test_a_row_that_was_refused_is_in_its_dataset_all_the_same(
    home: Home, world: Forms, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = told(home, capsys, "--where", "id=blurred-1", "--dry-run")
    assert [each["rows"] for each in answer["holds"]] == [{"refused": ["blurred-1"]}]
    assert not any(each["learned"] for each in answer["made_from_them"])


def test_the_decision_is_written_once_and_names_nobody(
    home: Home, world: Forms, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told(home, capsys, "--where", "origin.labeller=bob")["recorded"] is True
    written = (home.root / FILE).read_text()
    # No hexadecimal digest has an "o" in it.
    assert "bob" not in written
    answer = told(home, capsys, "--where", "origin.labeller= bob ")
    assert answer["recorded"] is False
    assert (home.root / FILE).read_text() == written
    assert answer["where"] == ["origin.labeller"]
    assert "removed" not in answer
    assert home.by_id(world.dataset.id)


def test_nothing_is_removed_while_it_is_served_unless_one_insists(
    home: Home, world: Forms, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--where", "origin.labeller=bob")
    before = [each.id for each in home.all()]
    assert forget(home, *where, "--delete") == 3
    said = capsys.readouterr()
    assert "form-003" in said.out
    assert "bank-forms@production: points at" in said.err
    assert [each.id for each in home.all()] == before
    assert not (home.root / FILE).exists()
    answer = told(home, capsys, *where, "--delete", "--even-served")
    assert len(answer["removed"]) == 4
    assert kinds(home) == {"base", "dataset", "intake", "run", "model", "profile", "release"}
    assert any("not removed, because a channel points at it" in each for each in answer["next"])
    assert not list((home.root / "work").glob("*/*"))
    # What is gone is remembered: the release is still known to have been examined with them.
    later = told(home, capsys, *where, "--dry-run")
    assert reached(later, "release")[0]["may_quote"] is True
    # Of other rows nobody can say what that page quotes.
    assert forget(home, "--where", "origin.labeller=ada", "--dry-run") == 4
    assert "what its page quotes is not known" in capsys.readouterr().out


def test_a_release_that_nobody_serves_goes_with_its_page(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    world = Forms(home)
    world.release("one", wrong_every(3))
    answer = told(home, capsys, "--where", "id=form-003", "--delete")
    assert kinds(home) == {"base", "dataset", "intake", "run", "model", "profile"}
    assert answer["removed"][-1] == world.held_out.id
    entries = [json.loads(line) for line in (home.root / FILE).read_text().splitlines()]
    assert [each["kind"] for each in entries if each["act"] == "remove"] == [
        "release", "report", "trace", "trace", "held_out",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["flagged.jsonl", "disagreements.jsonl"])
def test_an_intake_that_names_a_row_of_the_exam_goes_with_it(
    home: Home, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    world = Forms(home)
    records = b'{"row": "form-003", "labeller": "bob"}\n{"row": "form-9", "labeller": "bob"}\n'
    naming = world.make_intake("naming", world.dataset, {name: records})
    answer = told(home, capsys, "--where", "id=form-003", "--delete")
    assert {each["kind"]: each["rows"] for each in answer["holds"]} == {
        "held_out": {"held_out": ["form-003"]},
        "intake": {"listed": ["form-003"]},
    }
    assert {each.id for each in home.all("intake")} == {world.intake.id}
    assert naming.id in answer["removed"]


def test_a_label_in_whose_place_another_was_taken_is_found(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    world = Forms(home)
    records = b'{"row": "form-050", "labeller": "ada"}\n{"row": "dan-1", "labeller": "dan"}\n'
    naming = world.make_intake("naming", world.dataset, {"disagreements.jsonl": records * 2})
    answer = told(home, capsys, "--where", "origin.labeller=dan", "--delete")
    assert [(each["id"], each["rows"]) for each in answer["holds"]] == [(naming.id, {"left_out": ["dan-1"]})]
    assert answer["removed"] == [naming.id]
    assert home.by_id(world.dataset.id)


@pytest.mark.parametrize("at", range(5))
def test_a_removal_that_was_killed_is_finished_by_the_next(
    home: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    world = Forms(home)
    world.release("one", wrong_every(3))
    real, calls = shutil.rmtree, []

    def killed(path: Path, ignore_errors: bool = False) -> None:
        calls.append(path)
        # The first call clears what an earlier removal left.
        if len(calls) == at + 2:
            (path / "manifest.json").unlink()
            raise KeyboardInterrupt
        real(path, ignore_errors=ignore_errors)

    with monkeypatch.context() as patch:
        patch.setattr(removal.shutil, "rmtree", killed)
        assert forget(home, "--where", "id=form-003", "--delete") == 130
    assert list((home.root / "work" / "removed").iterdir())
    told(home, capsys, "--where", "id=form-003", "--delete")
    assert kinds(home) == {"base", "dataset", "intake", "run", "model", "profile"}
    assert not (home.root / "work" / "removed").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--where", "origin.labeler=ada"), "did you mean 'origin.labeller'"),
        (("--where", "labeller=ada", "--where", "id="), "the value is empty"),
        ((), "every row would be meant"),
        (("--where", "meta.dsk=3"), "no row here has 'meta.dsk'"),
        (("--where", "id=a", "--recipe", "missing.yaml"), "missing.yaml"),
    ],
)
def test_what_cannot_be_meant(
    home: Home, arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Forms(home)
    assert forget(home, *arguments) == 2
    assert said in capsys.readouterr().err
    assert not (home.root / FILE).exists()


def test_a_value_that_no_row_has_is_held_against_those_there_are(
    home: Home, world: Forms, capsys: pytest.CaptureFixture[str]
) -> None:
    assert forget(home, "--where", "origin.labeller=boob", "--dry-run") == 0
    assert "near it are 'bob'" in capsys.readouterr().out


def test_a_dataset_that_cannot_be_read_is_named(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    broken = World(home).dataset
    assert forget(home, "--where", "id=form-003") == 4
    text = capsys.readouterr().out
    assert "NOT looked into" in text
    assert f"{broken.short}  " in text
    assert (home.root / FILE).exists()


@pytest.mark.slow
def test_the_dataset_is_made_without_them_and_they_do_not_come_back(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Folder(tmp_path / "handed-over")
    for number in range(60):
        row = folder.row(f"row-{number}", f"group-{number // 2}", json.dumps({"n": number}))
        folder.add(row | {"origin": {"labeller": ("bob", "cleo", "ada")[number % 3]}})
    folder.write()
    recipe = write_recipe(tmp_path / "recipe.yaml", tmp_path / "no-base", folder.root)

    def prepared() -> dict[str, str]:
        capsys.readouterr()
        assert main(["prepare", str(recipe), "--home", str(home.root), "--json"]) == 0
        answer = json.loads(capsys.readouterr().out)
        dataset, exam = home.by_id(answer["dataset"]), home.by_id(answer["held_out"])
        rows = {split: read_split(dataset, split) for split in ("train", "validation")}
        rows["held_out"] = read_held_out(home, exam, "test")
        return {row.sample.id: split for split, taken in rows.items() for row in taken}

    before = prepared()
    old = {each.id for each in home.all()}
    answer = told(home, capsys, "--where", "origin.labeller=ada", "--recipe", recipe, "--delete")
    assert set(answer["removed"]) == old
    assert {each.id for each in home.all()} == {answer["dataset"], answer["held_out"], answer["intake"]}
    assert not (home.root / "cache").exists()
    after = prepared()
    assert after == {row: split for row, split in before.items() if int(row[4:]) % 3 != 2}

    folder.add(folder.row("late", "group-0") | {"origin": {"labeller": "ada"}})
    folder.add(folder.row("fresh", "group-99") | {"origin": {"labeller": "bob"}})
    folder.write()
    again = prepared()
    assert "late" not in again
    assert {row: split for row, split in again.items() if row != "fresh"} == after


def test_a_preparation_that_takes_them_again_is_caught(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from data_prep.forgetting import Forgotten

    folder = Folder(tmp_path / "handed-over")
    folder.fill(groups=30)
    folder.write()
    recipe = write_recipe(tmp_path / "recipe.yaml", tmp_path / "no-base", folder.root)
    monkeypatch.setattr(Forgotten, "flaw", lambda *each: None)
    assert forget(home, "--where", "id=good-3-0", "--recipe", recipe, "--delete") == 4
    assert "the rows are not gone" in capsys.readouterr().err
    assert home.all("dataset")


def test_a_name_inside_a_longer_name_is_not_on_the_page() -> None:
    page = "<b>form-30</b> my-form-3 form-3x a&amp;b"
    assert list(reach._shown(page, ["form-3", "form-30", "a&b"])) == ["form-30", "a&b"]
