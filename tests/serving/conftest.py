"""What tests with a real engine share: made once, because every engine start costs a minute."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from lensmith.base import pin_base
from lensmith.home import Home
from lensmith.recipe import load_recipe
from serving.engine import Engine, running_engine
from serving.gates import Policy, read_policy
from serving.profile import derive_profile
from tests.conftest import FORM_SCHEMA, ROOT, recipe_content, shared_folder
from tests.films import SAMPLING
from tests.release_artifacts import World
from tests.serving.exam import CPU, Exam

SERVE = {
    "dtype": "float32",
    "max_model_len": 512,
    "max_new_tokens": 12,
    "kv_cache_gib": 0.25,
    "proof_rows": 64,
    "concurrency": 4,
    # Everything that is proven is proven with vLLM's parser of calls on, and guided as well as free.
    "tools": True,
    "guided_json": True,
    "max_videos": 2,
}


@pytest.fixture(scope="session")
def exam(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, bank_forms: Path) -> Exam:
    """A lively base, a random adapter on all towers, its merge, and what transformers answers. Made by one
    worker; each has a home of its own, in which it is found."""

    def make(folder: Path) -> None:
        from tests.artifacts import make_lively

        shutil.copytree(tiny_base, folder / "lively")
        make_lively(folder / "lively")
        content = recipe_content(folder / "lively", bank_forms)
        content["serve"] = SERVE
        content["data"]["video"] = SAMPLING
        content["data"]["answer_schema"] = {"inline": FORM_SCHEMA}
        (folder / "recipe.yaml").write_text(yaml.safe_dump(content))
        open_exam(folder / "recipe.yaml", Home(folder / "home"), bank_forms)

    made = shared_folder(tmp_path_factory, "exam", make)
    home = Path(shutil.copytree(made / "home", tmp_path_factory.mktemp("exam") / "home"))
    return open_exam(made / "recipe.yaml", Home(home), bank_forms)


def open_exam(path: Path, home: Home, forms: Path) -> Exam:
    """The exam of the recipe at `path`: what is not in `home` yet is made."""
    from finetune.generate import reference_trace
    from finetune.merge import merge
    from tests.artifacts import make_held_out, make_run

    recipe = load_recipe(path)
    base = pin_base(recipe, home)
    run = make_run(home, base)
    held_out = make_held_out(home, forms)
    return Exam(
        home,
        recipe,
        base,
        run,
        merge(recipe, home, base, run),
        held_out,
        reference_trace(recipe, home, base, run, held_out, 64),
        reference_trace(recipe, home, base, None, held_out, 64),
    )


@pytest.fixture(scope="module")
def merged_engine(exam: Exam) -> Iterator[Engine]:
    """The merged model, served with its caches off."""
    profile = derive_profile(exam.recipe, exam.home, exam.model, exam.base, CPU)
    with running_engine(profile, exam.home, proof=True) as engine:
        yield engine


@pytest.fixture
def world(home: Home) -> World:
    """Artifacts around releases, with forms enough for the shipped policy: 24 groups."""
    return World(home)


@pytest.fixture(scope="session")
def policy() -> Policy:
    """The shipped gate policy."""
    return read_policy(ROOT / "recipes/gates/default.yaml")
