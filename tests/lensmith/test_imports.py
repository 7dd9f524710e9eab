"""What may be imported without torch, and what `lensmith --help` may import at all."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from collections.abc import Sequence

import pytest

import data_prep
import lensmith

HEAVY = ("torch", "transformers", "torchvision", "vllm", "deepspeed", "accelerate", "peft", "trl", "datasets")
# The half of serving that keeps releases; the other half runs an engine.
REGISTRY = ("registry", "gates", "promote", "bundle", "card", "release_file")


def modules_of(package: str, paths: Sequence[str]) -> list[str]:
    return [each.name for each in pkgutil.walk_packages(paths, f"{package}.")]


def loaded_after(code: str, looked_for: Sequence[str]) -> list[str]:
    """Which of `looked_for` a new interpreter has loaded after running `code`."""
    probe = f"import sys\n{code}\nprint('LOADED', *[n for n in {list(looked_for)!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.rpartition("LOADED")[2].split()


def import_all(modules: Sequence[str]) -> str:
    return f"import importlib\nfor name in {list(modules)!r}: importlib.import_module(name)"


def test_the_probe_sees_what_is_imported() -> None:
    assert loaded_after(import_all(["lensmith.files"]), ["hashlib", *HEAVY]) == ["hashlib"]


@pytest.mark.parametrize(
    "modules",
    [
        [name for name in modules_of("lensmith", lensmith.__path__) if not name.startswith("lensmith.cli.")],
        modules_of("data_prep", data_prep.__path__),
        [f"serving.{name}" for name in REGISTRY],
        ["lensmith.cli.main", *modules_of("lensmith.cli.doctor", [f"{lensmith.__path__[0]}/cli/doctor"])],
    ],
    ids=["spine", "data_prep", "registry", "command line"],
)
def test_no_torch(modules: list[str]) -> None:
    assert modules
    assert loaded_after(import_all(modules), HEAVY) == []


def test_a_merge_knows_no_model_class() -> None:
    """It works on files: a class would take its time and memory, and might say otherwise than they."""
    modules = ["finetune.merging.weights", "finetune.merge"]
    # Torch comes when there is something to compute, see finetune/merging/late.py.
    assert loaded_after(import_all(modules), [*HEAVY, "bitsandbytes"]) == []
    code = import_all([*modules, "finetune.merging.outside", "finetune.merging.crew"])
    code += "\nfrom finetune.merging.crew import crew_at_work\nwith crew_at_work() as crew: crew.settle()"
    assert loaded_after(code, [*HEAVY, "bitsandbytes"]) == ["torch"]


@pytest.mark.parametrize("argument", ["--help", "--version", "no-such-verb"])
def test_help_loads_next_to_nothing(argument: str) -> None:
    # Not a timed test: machines differ. These are what would take `lensmith --help` beyond 0.3 s.
    looked_for = ["pydantic", "yaml", "numpy", "pyarrow", "PIL", "asyncio", "subprocess", *HEAVY]
    assert loaded_after(f"from lensmith.cli.main import main\nmain([{argument!r}])", looked_for) == []
