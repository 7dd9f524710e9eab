"""Faults planted in what a running vLLM reads and is asked: each blocks promotion by its name. One start.

A home holds a release that is proven. Its engine is asked anew, one thing is wrong now, and neither does the
same recipe make a release to promote, nor may the one that stands there be promoted any longer.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from lensmith.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from lensmith.artifact import Artifact
from lensmith.base import read_template
from lensmith.cli.main import main
from lensmith.cli.pipeline import Pipeline
from lensmith.home import Home
from serving import predict
from serving.command import engine_argv
from serving.engine import Engine, running_engine
from serving.profile import derive_profile, read_profile
from serving.question import request_body
from serving.registry import Registry
from tests.serving.exam import CPU

pytestmark = [pytest.mark.slow, pytest.mark.vllm, pytest.mark.e2e]
DECISION = ("--who", "ada", "--why", "a test")
# The run's adapter beside its base, in place of their merge: in float32 the same answers.
ADAPTER = ("serve.mode=adapter", "serve.tower_connector_lora=true")
# The faulty engine takes sampling defaults from a generation_config.json; a request that says so gets none.
PENALTY = {"repetition_penalty": 1.5}
NO_PENALTY = {"repetition_penalty": 1.0}
RENAMED = "renamed"

Body = dict[str, Any]
Change = Callable[[Body, "Faulty"], Body]


class Faulty:
    """An engine that takes anything, and what its faults are made of."""

    def __init__(self, engine: Engine, profile: Artifact, checkpoint: Path) -> None:
        self.engine = engine
        self.template = read_template(checkpoint)
        images = read_profile(profile).images
        assert images.min_pixels is not None
        self.pixels = {"shortest_edge": images.min_pixels, "longest_edge": 2 * images.min_pixels}


def well(body: Body, faulty: Faulty) -> Body:
    """No fault."""
    return body | NO_PENALTY


def template(body: Body, faulty: Faulty) -> Body:
    return body | NO_PENALTY | {"chat_template": "{{- 'Hello ' -}}" + faulty.template}


def pixels(body: Body, faulty: Faulty) -> Body:
    return body | NO_PENALTY | {"mm_processor_kwargs": {"size": faulty.pixels}}


def key_prefix(body: Body, faulty: Faulty) -> Body:
    return body | NO_PENALTY | {"model": RENAMED}


def generation_config(body: Body, faulty: Faulty) -> Body:
    return body


FAULTS: dict[Change, str] = {
    template: "another chat template or tokenizer",
    pixels: "the pixel budget of serving is not training's",
    key_prefix: "the base's own answer: the adapter is not applied, or its keys were not matched",
    generation_config: "generation_config.json",
}


def with_keys_renamed(run: Artifact, folder: Path) -> Path:
    """The run's adapter under names that the model's modules do not have; their last parts stay."""
    folder.mkdir()
    shutil.copy(run.path / ADAPTER_CONFIG, folder)
    tensors = load_file(run.path / ADAPTER_WEIGHTS)
    renamed = {name.replace("model.model.", "model.inner."): tensor for name, tensor in tensors.items()}
    assert not renamed.keys() & tensors.keys()
    save_file(renamed, folder / ADAPTER_WEIGHTS)
    return folder


@pytest.fixture(scope="module")
def faulty(
    arguments: list[str], unbroken: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Faulty]:
    """The adapter, the adapter under other names, and defaults that nobody evaluated: any request chooses."""
    folder = tmp_path_factory.mktemp("faulty")
    home = Home(Path(shutil.copytree(unbroken, folder / "home")))
    pipeline = Pipeline(Path(arguments[1]), ADAPTER, home)
    profile = derive_profile(pipeline.recipe, home, pipeline.run, pipeline.base, CPU)
    renamed = with_keys_renamed(pipeline.run, folder / RENAMED)
    (folder / "generation_config.json").write_text(json.dumps(PENALTY))

    def argv(*given: Any, **more: Any) -> list[str]:
        words = engine_argv(*given, **more)
        behind = words.index("--lora-modules") + 2
        words[behind:behind] = [json.dumps({"name": RENAMED, "path": str(renamed)}), "--max-loras", "2"]
        return [
            *words,
            "--trust-request-chat-template",
            "--trust-request-mm-kwargs",
            "--generation-config",
            str(folder),
        ]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("serving.engine.engine_argv", argv)
        # The linter refuses an engine that takes all this.
        patch.setattr("serving.engine.refuse_unsafe", lambda *_: None)
        with running_engine(profile, home, proof=True) as engine:
            yield Faulty(engine, profile, pipeline.recipe.base.path)


@pytest.fixture
def home(arguments: list[str], unbroken: Path, tmp_path: Path) -> Home:
    """A home whose release stands, and whose served answers are to be asked anew."""
    home = Home(Path(shutil.copytree(unbroken, tmp_path / "home")))
    shutil.rmtree(Pipeline(Path(arguments[1]), (), home).trace.path)
    return home


def asked_anew(
    arguments: list[str], home: Home, faulty: Faulty, change: Change, patch: pytest.MonkeyPatch
) -> int:
    """The exit code of the same recipe with promotion, its requests changed on their way."""
    patch.setattr(predict, "running_engine", lambda *_, **__: contextlib.nullcontext(faulty.engine))
    patch.setattr(predict, "request_body", lambda *given: change(request_body(*given), faulty))
    return main([*arguments, "--home", str(home.root), "--promote", "staging", *DECISION])


def test_without_a_fault_it_is_promoted(
    arguments: list[str], home: Home, faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asked_anew(arguments, home, faulty, well, monkeypatch) == 0
    with Registry.open(home) as registry:
        assert registry.find_current("bank-forms", "staging") is not None


@pytest.mark.parametrize("change", FAULTS, ids=lambda change: change.__name__)
def test_a_fault_blocks_promotion_by_its_name(
    arguments: list[str],
    home: Home,
    faulty: Faulty,
    change: Change,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert asked_anew(arguments, home, faulty, change, monkeypatch) == 3
    assert FAULTS[change] in capsys.readouterr().err
    # The release that was proven before: of the same model under the same profile.
    (release,) = home.all("release")
    assert main(["promote", release.short, "--home", str(home.root), "--to", "staging", *DECISION]) == 3
    assert FAULTS[change] in capsys.readouterr().err
    with Registry.open(home) as registry:
        assert registry.acts() == []
