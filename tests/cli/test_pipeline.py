"""Where a run looks for what a release has to beat."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from lensmith.artifact import Artifact
from lensmith.cli.main import main
from lensmith.cli.pipeline import Pipeline
from lensmith.errors import InputError
from lensmith.home import Home
from lensmith.recipe import Recipe
from serving.build import EngineBuild
from serving.gates import read_policy
from serving.promote import promote
from tests.conftest import ROOT, write_recipe
from tests.data_prep.folder import Folder
from tests.release_artifacts import World, label
from tests.serving.small import small_base, small_recipe


@pytest.fixture
def world(home: Home) -> World:
    """A home with model "one" in production, promoted over the base."""
    world = World(home)
    policy = read_policy(ROOT / "recipes/gates/default.yaml")
    promote(home, world.release("one"), "production", "ada", "better", policy)
    return world


def serving(world: World, model: Artifact, folder: Path) -> Pipeline:
    """A pipeline whose stages up to the merge ended with `model`."""
    recipe = write_recipe(folder / "recipe.yaml", folder / "base", folder / "forms")
    pipeline = Pipeline(recipe, (), world.home)
    pipeline.__dict__["served"] = model
    return pipeline


def test_what_is_trained_is_held_against_the_base_where_production_is_to_be_beaten_too(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Production is served for the gate; the base is asked in transformers for the serve proof."""
    answers = world.trace(world.base, label, name="in transformers")

    def asked(recipe: Recipe, home: Home, base: Artifact, run: Artifact | None, *rest: object) -> Artifact:
        assert (base.id, run) == (world.base.id, None)
        return answers

    monkeypatch.setattr("finetune.generate.reference_trace", asked)
    pipeline = serving(world, world.model("two"), tmp_path)
    pipeline.__dict__.update(base=world.base, _prepared=(world.dataset, world.held_out, world.intake))
    assert pipeline.base_trace.id == answers.id
    # Where the base is what a release has to beat, it is served already.
    pipeline = serving(world, world.model("two"), tmp_path)
    pipeline.__dict__.update(
        base=world.base, baseline_profile=world.profile(world.base), baseline_trace=world.held_out
    )
    assert pipeline.base_trace.id == world.held_out.id


def test_another_model_is_held_against_production(world: World, tmp_path: Path) -> None:
    pipeline = serving(world, world.model("two"), tmp_path)
    assert pipeline.baseline_profile.id == world.profile(world.model("one")).id
    assert pipeline.baseline_name == "production"


def test_the_model_in_production_keeps_what_it_was_held_against(world: World, tmp_path: Path) -> None:
    pipeline = serving(world, world.model("one"), tmp_path)
    assert pipeline.baseline_profile.id == world.profile(world.base).id
    assert pipeline.baseline_name == "base"


def test_production_of_another_name_does_not_count(world: World, tmp_path: Path) -> None:
    recipe = write_recipe(
        tmp_path / "recipe.yaml", tmp_path / "base", tmp_path / "forms", release__name="cheques"
    )
    assert Pipeline(recipe, (), world.home)._production is None


def test_requests_that_will_not_fit_are_told_before_the_training(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pipeline, "run", property(lambda _: pytest.fail("trained")))
    recipe_path = write_recipe(tmp_path / "recipe.yaml", tmp_path / "base", tmp_path / "forms")
    pipeline = Pipeline(recipe_path, (), home)
    pipeline.recipe = small_recipe(tmp_path, max_model_len=100)
    pipeline.__dict__["base"] = small_base(home, pipeline.recipe)
    with pytest.raises(InputError, match="could not be served") as error:
        _ = pipeline.profile
    assert {each.where for each in error.value.problems} == {"serve.max_model_len"}


def test_a_stage_of_which_a_part_was_made_again_is_not_already_there(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Folder(tmp_path / "forms")
    folder.fill()
    folder.recipe()

    def said() -> str:
        assert Pipeline(folder.root.with_suffix(".yaml"), (), home).intake
        return capsys.readouterr().err

    said()
    assert "already there" in said()
    for each in home.all("intake"):
        shutil.rmtree(each.path)
    assert "made in" in said()


FROZEN = {"vision": "freeze", "connector": "freeze", "language": "adapt"}


@pytest.mark.parametrize("verb", ["plan", "train"])
@pytest.mark.parametrize(
    ("settings", "version", "device", "why"),
    [
        (
            {"family": "qwen3_vl_moe", "train__towers": FROZEN},
            "0.32.0",
            "cpu",
            "Triton's kernels alone, which its CPU engine lacks",
        ),
        (
            {"serve__tower_connector_lora": True},
            "0.34.0",
            "cuda",
            "serve.mode = adapter: not known for vLLM 0.34.0 and Qwen3-VL (known for 0.32, 0.33)",
        ),
    ],
    ids=["lacking its kernels", "that nobody has read"],
)
def test_an_engine_that_may_not_apply_the_adapter_is_told_before_anything_is_trained(
    home: Home,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
    settings: dict[str, Any],
    version: str,
    device: str,
    why: str,
) -> None:
    places = (tmp_path / "recipe.yaml", tmp_path / "base", tmp_path / "forms")
    recipe = write_recipe(*places, serve__mode="adapter", **settings)
    build = EngineBuild(version=version, device=device)
    monkeypatch.setattr("serving.profile.installed_engine", lambda: build)
    assert main([verb, str(recipe), "--home", str(home.root)]) == 2
    told = capsys.readouterr().err
    assert why in told
    assert "merge it: serve.mode: merged" in told


def test_what_is_merged_with_the_run_must_not_know_the_exam(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told where the adapters are looked at, so before anything is trained."""
    knowing = world.run("two")
    monkeypatch.setattr("finetune.further.further_adapters", lambda *_: [knowing])
    monkeypatch.setattr("lensmith.overlap.learned_rows", lambda *_: 3)
    pipeline = serving(world, world.model("two"), tmp_path)
    pipeline.__dict__.update(base=world.base, _prepared=(world.dataset, world.held_out, world.intake))
    with pytest.raises(InputError, match="has learned rows of this recipe's exam"):
        _ = pipeline.run
