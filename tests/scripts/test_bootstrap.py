"""scripts/bootstrap: does nothing twice, and trusts nothing that was cut short.

The real installer would take minutes and a network; what is planted here is a `uv` on PATH that notes how it
was called. The real one runs whenever `make test` starts in a fresh clone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
STAMP = ".venv/lensmith-stamp"
HOOK = "lensmith_torchvision_cpu_hook"
# Not sys.executable: that one belongs to the environment that runs the tests, which must not be touched.
BASE_PYTHON = str(Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}")
MODULES = sysconfig.get_path("purelib", "venv", {"base": ".venv"})
# Makes a real, empty environment, apart from the one that runs the tests; says yes to everything else. A
# package that bootstrap imports is an empty module, so that the imports at the end have something to find.
UV = """#!/bin/sh
echo "$*" >> "$UV_LOG"
case "$1 $2" in
    "venv --quiet")
        {python} -m venv --without-pip .venv
        for name in torchvision transformers trl peft deepspeed vllm; do : > {modules}/$name.py; done ;;
    "pip sync") [ -z "$UV_FAILS" ] ;;
    "tool run")
        [ -z "$UV_NO_TEST_DATA" ] || exit 1
        version=$(sed -n 's/^pillow==\\([0-9.]*\\) .*/\\1/p' requirements/test-data.txt)
        mkdir -p .cache/coming
        : > .cache/coming/pillow-$version.tar.gz ;;
    "pip install") case "$*" in *--dry-run*) [ -z "$UV_NO_CPU_TORCH" ] ;; esac ;;
esac
"""


def installed_here() -> dict[str, int]:
    """The files at the top of our own site-packages, with the time each was last changed."""
    site = Path(sysconfig.get_path("purelib"))
    return {path.name: path.stat().st_mtime_ns for path in site.iterdir() if path.is_file()}


@dataclass
class Clone:
    """A copy of the files that bootstrap reads, with a `uv` that only notes its calls."""

    path: Path
    environment: dict[str, str] = field(default_factory=dict)

    def bootstrap(self, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.path / "scripts/bootstrap"],
            capture_output=True,
            text=True,
            env=self.environment | environment,
            timeout=60,
        )

    def calls(self) -> list[str]:
        """What uv was asked since the last time this was read."""
        log = Path(self.environment["UV_LOG"])
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return [line for line in lines if line != "--version"]


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Clone]:
    path = tmp_path / "clone"
    (path / "scripts").mkdir(parents=True)
    for name in ("scripts/bootstrap", "scripts/torchvision_cpu_hook.py", "pyproject.toml"):
        shutil.copy(ROOT / name, path / name)
    shutil.copytree(ROOT / "requirements", path / "requirements")
    planted = tmp_path / "bin"
    planted.mkdir()
    (planted / "uv").write_text(UV.format(python=BASE_PYTHON, modules=MODULES))
    (planted / "uv").chmod(0o755)
    environment = {
        "PATH": f"{planted}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "UV_LOG": str(tmp_path / "uv.log"),
        "PYTHON": BASE_PYTHON,
        "LENSMITH_BUILD": "cpu",
        # Without it each call asks pip, which takes longer than all the rest.
        "UV_FIND_LINKS": "/no/wheels",
        "UV_FAILS": "",
        "UV_NO_CPU_TORCH": "",
        "UV_NO_TEST_DATA": "",
    }
    before = installed_here()
    yield Clone(path, environment)
    assert installed_here() == before, "bootstrap reached into the environment that runs the tests"


def test_the_second_call_starts_no_installer(clone: Clone) -> None:
    first = clone.bootstrap()
    assert first.returncode == 0, first.stderr
    asked = clone.calls()
    assert [call.split()[:2] for call in asked if "--dry-run" not in call] == [
        ["venv", "--quiet"],
        ["pip", "sync"],
        ["pip", "install"],
        ["tool", "run"],
    ]
    assert asked[-2].endswith("--no-deps --no-build-isolation --editable .")
    second = clone.bootstrap()
    assert (second.returncode, second.stderr) == (0, "bootstrap: nothing to do\n")
    assert clone.calls() == []


def test_the_test_images_are_fetched_again_until_they_are_there(clone: Clone) -> None:
    without = clone.bootstrap(UV_NO_TEST_DATA="yes")
    assert without.returncode == 0, without.stderr
    assert "could not be fetched" in without.stderr
    assert (clone.path / STAMP).exists()
    clone.calls()
    assert clone.bootstrap().returncode == 0
    (call,) = clone.calls()
    assert call.startswith("tool run")
    assert "--require-hashes" in call
    assert call.endswith("--requirement requirements/test-data.txt")
    assert clone.bootstrap().stderr == "bootstrap: nothing to do\n"
    (archive,) = (clone.path / ".cache").glob("pillow-*.tar.gz")
    archive.unlink()
    assert "fetching" in clone.bootstrap().stderr


@pytest.mark.parametrize(
    "name",
    [
        "requirements/cpu.txt",
        "scripts/torchvision_cpu_hook.py",
        "scripts/bootstrap",
        "pyproject.toml",
    ],
)
def test_a_change_of_what_it_is_made_from_installs_again(clone: Clone, name: str) -> None:
    clone.bootstrap()
    clone.calls()
    with (clone.path / name).open("a") as file:
        file.write("# changed\n")
    assert clone.bootstrap().returncode == 0
    asked = clone.calls()
    assert any(call.startswith("pip sync") for call in asked)
    # The environment was whole: what is right in it stays.
    assert not any(call.startswith("venv") for call in asked)


def test_the_other_build_is_another_environment(clone: Clone) -> None:
    clone.bootstrap()
    clone.calls()
    assert clone.bootstrap(LENSMITH_BUILD="cuda").returncode == 0
    assert any(
        call.startswith("pip sync") and call.endswith("requirements/cuda.txt") for call in clone.calls()
    )


def test_a_driver_that_answers_chooses_cuda(clone: Clone, tmp_path: Path) -> None:
    driver = tmp_path / "bin/nvidia-smi"
    driver.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H200 (UUID: GPU-0)'\n")
    driver.chmod(0o755)
    assert clone.bootstrap(LENSMITH_BUILD="").returncode == 0
    assert any("requirements/cuda.txt" in call for call in clone.calls())
    driver.write_text("#!/bin/sh\necho 'no devices were found'\nexit 6\n")
    clone.bootstrap(LENSMITH_BUILD="")
    assert any("requirements/cpu.txt" in call for call in clone.calls())


def test_an_install_that_was_cut_short_begins_from_nothing(clone: Clone) -> None:
    failed = clone.bootstrap(UV_FAILS="yes")
    assert failed.returncode == 2
    assert "the packages could not be installed" in failed.stderr
    assert not (clone.path / STAMP).exists()
    (clone.path / ".venv/half-a-package").write_text("")
    clone.calls()
    assert clone.bootstrap().returncode == 0
    assert clone.calls()[0].startswith("venv")
    assert not (clone.path / ".venv/half-a-package").exists()


def test_a_failed_update_is_not_taken_for_whole(clone: Clone) -> None:
    clone.bootstrap()
    (clone.path / "requirements/cpu.txt").open("a").write("# changed\n")
    assert clone.bootstrap(UV_FAILS="yes").returncode == 2
    assert not (clone.path / STAMP).exists()


def test_packages_that_do_not_load_are_an_error(clone: Clone) -> None:
    clone.bootstrap()
    (clone.path / MODULES / "vllm.py").write_text("raise ImportError('libcuda is missing')\n")
    (clone.path / "pyproject.toml").open("a").write("# changed\n")
    failed = clone.bootstrap()
    assert failed.returncode == 2
    assert "libcuda is missing" in failed.stderr
    assert not (clone.path / STAMP).exists()


def test_the_hook_is_installed_only_where_a_plain_import_fails(clone: Clone) -> None:
    clone.bootstrap()
    site = clone.path / MODULES
    assert not (site / f"{HOOK}.pth").exists()
    # Fails until the hook's module is loaded, as the CUDA build of torchvision does beside a CPU torch.
    (site / "torchvision.py").write_text(
        f"import sys\nassert {HOOK!r} in sys.modules, 'nms does not exist'\n"
    )
    (site / "torch.py").write_text(
        "class library:\n class Library:\n"
        "  def __init__(self, *names): pass\n"
        "  def define(self, schema): pass\n"
    )
    with (clone.path / "pyproject.toml").open("a") as file:
        file.write("# changed\n")
    done = clone.bootstrap()
    assert done.returncode == 0, done.stderr
    assert "installing the hook" in done.stderr
    assert (site / f"{HOOK}.pth").read_text() == f"import {HOOK}\n"
    # On CUDA it goes again: there the plain import is right.
    (site / "torchvision.py").write_text("")
    assert clone.bootstrap(LENSMITH_BUILD="cuda").returncode == 0
    assert not (site / f"{HOOK}.pth").exists()
    assert not (site / f"{HOOK}.py").exists()


def test_pips_find_links_are_handed_to_uv(clone: Clone, tmp_path: Path) -> None:
    # A wheel folder that only pip knows of: uv would not look there by itself.
    (tmp_path / "bin/uv").write_text(
        UV.format(python=BASE_PYTHON, modules=MODULES) + 'echo "links $UV_FIND_LINKS" >> "$UV_LOG"\n'
    )
    clone.bootstrap(UV_FIND_LINKS="", PIP_FIND_LINKS="/some/wheels  /more/wheels")
    assert "links /some/wheels,/more/wheels" in clone.calls()


def test_where_no_place_has_the_cpu_torch_uv_finds_it(clone: Clone) -> None:
    clone.bootstrap()
    assert not any("--torch-backend" in call for call in clone.calls())
    (clone.path / STAMP).unlink()
    clone.bootstrap(UV_NO_CPU_TORCH="yes")
    assert any(call.startswith("pip sync") and "--torch-backend=cpu" in call for call in clone.calls())


def test_an_old_python_is_a_clear_error(clone: Clone, tmp_path: Path) -> None:
    old = tmp_path / "bin/python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    told = clone.bootstrap(PYTHON=str(old))
    assert told.returncode == 2
    assert "is not Python 3.11 or newer" in told.stderr
    for name in ("python3.11", "python3.12", "python3.13", "python3.14"):
        shutil.copy(old, tmp_path / "bin" / name)
    told = clone.bootstrap(PYTHON="")
    assert told.returncode == 2
    assert "no Python 3.11 or newer was found" in told.stderr
    assert "apt-get install python3.11" in told.stderr


def test_a_wrong_build_is_a_clear_error(clone: Clone) -> None:
    told = clone.bootstrap(LENSMITH_BUILD="rocm")
    assert told.returncode == 2
    assert "neither cpu nor cuda" in told.stderr
    assert clone.calls() == []
