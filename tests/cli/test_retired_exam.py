"""What an exam that is over stops, through the command line: evaluating, running, promoting."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune.evaluation.evaluate import evaluate
from finetune.evaluation.predictions import read_predictions
from lensmith.artifact import Artifact
from lensmith.cli.main import main
from lensmith.cli.pipeline import Pipeline
from lensmith.dataset import READS_LOG, split_file
from lensmith.errors import GateRefused
from lensmith.home import Home
from lensmith.report import read_report
from lensmith.retirement import MEND, retire
from lensmith.row_file import write_rows
from tests.conftest import RecipeMaker
from tests.release_artifacts import World, all_wrong, form_rows, label, wrong_every

WHY = "labellers mend its mistakes"


def end(world: World, report: Artifact) -> None:
    retire(world.home, world.held_out, "ada", WHY, report, 12)


def promote(world: World, release: Artifact, channel: str) -> int:
    decision = ("--to", channel, "--who", "eve", "--why", "reads better")
    return main(["promote", release.id, *decision, "--home", str(world.home.root)])


def test_no_release_is_promoted_by_it(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    world = World(home)
    first, second = world.release("one"), world.release("two", wrong_every(4))
    assert promote(world, first, "staging") == 0
    end(world, home.by_id(second.manifest.inputs["report"]))
    capsys.readouterr()
    for channel in ("staging", "production"):
        assert promote(world, second, channel) == 3
        told = capsys.readouterr().err
        assert (
            f"exam: fail: held-out set {world.held_out.id[:12]} is no exam any more: ada retired it at"
            in told
        )
        assert WHY in told
        assert MEND in told
    # What stands there stays, and is still served and verified.
    assert promote(world, first, "staging") == 0


def test_no_model_is_evaluated_by_it(home: Home) -> None:
    world = World(home)
    report = world.report(world.model("one"), label, world.base, all_wrong)
    end(world, report)
    reads = (home.root / READS_LOG).read_text()
    for name in ("one", "two"):
        with pytest.raises(GateRefused, match="is no exam any more"):
            world.report(world.model(name), label, world.base, all_wrong)
    assert (home.root / READS_LOG).read_text() == reads


def test_validation_rows_can_be_evaluated_still(home: Home) -> None:
    world = World(home)
    rows = form_rows(8, 2)
    with home.create("dataset", "d" * 64, {}) as draft:
        write_rows(draft.path / split_file("validation"), rows)
    dataset = draft.artifact
    end(world, world.report(world.model("one"), label, world.base, all_wrong))
    reads = (home.root / READS_LOG).read_text()
    trace = world.trace(world.model("one"), wrong_every(4), held_out=dataset, rows=rows)
    report = evaluate(world.recipe, home, trace, dataset, None)
    assert report.manifest.inputs == {"trace": trace.id, "validation": dataset.id}
    assert (read_report(report).rows, read_report(report).held_out) == (8, dataset.id)
    wrong = [row for row, each in read_predictions(report).items() if not each.right]
    assert wrong == ["form-000", "form-004"]
    page = (report.path / "page.html").read_text()
    assert "8 validation rows of 4 groups" in page
    assert "held-out" not in page
    assert (home.root / READS_LOG).read_text() == reads


@pytest.mark.slow
def test_it_is_told_before_anything_is_trained(
    make_recipe: RecipeMaker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, home = make_recipe(), Home(tmp_path / "home")
    pipeline = Pipeline(recipe, (), home)
    with home.create("report", "b" * 64, {}) as draft:
        pass
    retire(home, pipeline.held_out, "ada", WHY, draft.artifact, 3)
    for verb in ("evaluate", "run", "release"):
        capsys.readouterr()
        assert main([verb, str(recipe), "--home", str(home.root)]) == 3
        assert "ada retired it at" in capsys.readouterr().err
    assert home.all("run") == []
    assert main(["prepare", str(recipe), "--home", str(home.root)]) == 0


@pytest.mark.slow
def test_without_validation_rows_there_is_nothing_to_ask(
    make_recipe: RecipeMaker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = str(make_recipe(data__split__validation=0.0))
    assert main(["evaluate", recipe, "--split", "validation", "--home", str(tmp_path / "home")]) == 2
    assert "has no validation rows" in capsys.readouterr().err
    assert Home(tmp_path / "home").all("run") == []


def test_a_trace_on_validation_rows_is_no_stage_of_a_release(home: Home, make_recipe: RecipeMaker) -> None:
    from lensmith.cli.stages import _made_from

    world = World(home)
    model = world.model("one")
    profile = world.profile(model)
    exam = world.trace(model, label)
    with home.create("dataset", "d" * 64, {}) as draft:
        pass
    world.trace(model, label, held_out=draft.artifact, name="validation")
    found = _made_from(home, "trace", "profile", profile)
    assert found is not None
    assert found.id == exam.id
