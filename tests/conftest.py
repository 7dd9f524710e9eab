"""Fixtures that every room shares: tiny models, forms, recipes and a home. One place makes them."""

from __future__ import annotations

import fcntl
import gc
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import HealthCheck, settings

from lensmith.home import Home
from lensmith.recipe import PATHS

pytest_plugins = ["tests.family_results"]

if TYPE_CHECKING:
    from fsspec.implementations.memory import MemoryFileSystem

ROOT = Path(__file__).resolve().parent.parent

# Tests never reach a network: a forgotten download fails at once instead of hanging.
os.environ.update(
    HF_HUB_OFFLINE="1",
    OMP_WAIT_POLICY="PASSIVE",
    WANDB_MODE="offline",
    VLLM_NO_USAGE_STATS="1",
    DO_NOT_TRACK="1",
)

# What the test modules import all stays: Python would look through it for garbage again and again.
gc.disable()


def pytest_collection_finish() -> None:
    """Garbage is collected again, and what was imported is never looked through."""
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    """Libraries that count what is left at the end of a process find it as ever."""
    gc.unfreeze()


# Generated examples are the same on every machine, whatever its speed.
settings.register_profile(
    "steady", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")

# What the forms' answers are; the names in the order in which answers and YAML have them.
FORM_SCHEMA = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in ("account", "amount", "date")},
    "required": ["account", "amount", "date"],
}

RecipeMaker = Callable[..., Path]


def shared_folder(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The folder `name` of this run of the tests, made by whichever worker asks first; the others wait."""
    shared = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    made = shared / f"{name}.made"
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            # A worker that could not make it says why; the next one tries anew.
            shutil.rmtree(shared / name, ignore_errors=True)
            (shared / name).mkdir()
            make(shared / name)
            made.touch()
    return shared / name


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untaught checkpoint of Qwen3-VL's real classes at the smallest size."""

    def make(folder: Path) -> None:
        from make_tiny_base import SMALLEST, write_untaught

        write_untaught(folder / "tiny", SMALLEST)

    return shared_folder(tmp_path_factory, "base", make) / "tiny"


@pytest.fixture(scope="session")
def bank_forms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small handed-over folder: 80 forms of 20 customers with the planted flaws."""

    def make(folder: Path) -> None:
        from make_bank_forms import make_bank_forms

        make_bank_forms(folder / "bank_forms", forms=80, customers=20, seed=17)

    return shared_folder(tmp_path_factory, "forms", make) / "bank_forms"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """An empty home."""
    return Home(tmp_path / "home")


def recipe_content(base: Path, forms: Path) -> dict[str, Any]:
    """A recipe that trains two steps of LoRA in float32 on one CPU process."""
    return {
        "version": 1,
        "family": "qwen3_vl",
        "base": {"path": str(base)},
        "data": {
            "source": str(forms / "labels.jsonl"),
            "answer": "json",
            "split": {"validation": 0.15, "held_out": 0.3, "seed": 17},
            "max_bad": 0.2,
        },
        "train": {
            "method": "lora",
            "towers": {"vision": "adapt", "connector": "adapt", "language": "adapt"},
            "lora": {"rank": 4, "alpha": 8.0},
            "launcher": str(ROOT / "recipes/accelerate/cpu.yaml"),
            "dtype": "float32",
            "max_steps": 2,
            "batch_size": 2,
            "learning_rate": 0.001,
            "max_length": 512,
            "log_every": 1,
            "save_every": 1,
            "wandb": "disabled",
        },
        "serve": {
            "dtype": "float32",
            "max_model_len": 512,
            "max_new_tokens": 16,
            "kv_cache_gib": 0.25,
            "proof_rows": 64,
        },
        "release": {"name": "bank-forms", "intended_use": "Reading bank forms in tests."},
        "gates": str(ROOT / "recipes/gates/default.yaml"),
    }


def write_recipe(path: Path, base: Path, forms: Path, **settings: Any) -> Path:
    """Write the small recipe with `settings` laid over it: "train__method" sets train.method."""
    content = recipe_content(base, forms)
    for dotted, value in settings.items():
        *parents, last = dotted.split("__")
        section = content
        for name in parents:
            section = section.setdefault(name, {})
        section[last] = str(value) if ".".join([*parents, last]) in PATHS else value
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def make_recipe(tmp_path: Path, tiny_base: Path, bank_forms: Path) -> RecipeMaker:
    """Write a small recipe into the test's folder; gives its path."""

    def make(**settings: Any) -> Path:
        return write_recipe(tmp_path / "recipe.yaml", tiny_base, bank_forms, **settings)

    return make


@pytest.fixture
def memory() -> Iterator[MemoryFileSystem]:
    """An empty store in memory, as fsspec has it."""
    import fsspec

    fs = fsspec.filesystem("memory")
    yield fs
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]
