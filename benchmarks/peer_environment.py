"""The peer's environment: pinned packages in a folder of their own below .cache/, made once, never ours."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.training import ROOT

REQUIREMENTS = ROOT / "benchmarks" / "peer_requirements.txt"
HOOK = ROOT / "scripts" / "torchvision_cpu_hook.py"
# Whose versions a result states.
PACKAGES = ("llamafactory", "torch", "transformers", "trl", "peft", "accelerate", "datasets")
_VERSIONS = (
    "import sys, json, importlib.metadata as m; print(json.dumps({p: m.version(p) for p in sys.argv[1:]}))"
)


def wanted() -> str:
    """What an environment is made from, as one digest: it is made anew when this changes."""
    parts = (sys.version.encode(), REQUIREMENTS.read_bytes(), HOOK.read_bytes())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def make(folder: Path) -> Path:
    """The environment's interpreter, the environment being made where `folder` has none or another one.

    Raises SystemExit where there is no uv, CalledProcessError where a package cannot be installed.
    """
    python, stamp = folder / "bin" / "python", folder / "lensmith-stamp"
    # Written last: its presence means that the environment is whole.
    if stamp.is_file() and stamp.read_text() == wanted():
        return python
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv is None:
        raise SystemExit("the peer's environment is made by uv, which is not here: pip install uv")
    print(f"making the peer's environment in {folder}", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)], check=True)
    install = [uv, "pip", "install", "--quiet", "--no-deps", "--python", str(python)]
    given = {**os.environ, "UV_FIND_LINKS": os.environ.get("UV_FIND_LINKS") or _find_links()}
    torch = next(line for line in REQUIREMENTS.read_text().splitlines() if line.startswith("torch=="))
    # Where no find-links holds the CPU build of torch, uv knows the index that does.
    at_hand = subprocess.run([*install, "--dry-run", torch], env=given, capture_output=True).returncode == 0
    source = [] if at_hand else ["--torch-backend=cpu"]
    subprocess.run([*install, *source, "--requirement", str(REQUIREMENTS)], env=given, check=True)
    _fit_to_cpu(python)
    stamp.write_text(wanted())
    return python


def versions(python: Path) -> dict[str, str]:
    """The versions that really are in the environment."""
    return json.loads(subprocess.check_output([str(python), "-c", _VERSIONS, *PACKAGES]))


def _find_links() -> str:
    """pip's own find-links, which uv does not read; uv wants commas where pip has spaces."""
    # An environment made by uv has no pip; what it was made from has.
    python = Path(sys.base_prefix) / "bin" / "python3"
    asked = subprocess.run(
        [str(python), "-m", "pip", "config", "get", "global.find-links"], capture_output=True, text=True
    )
    return ",".join((asked.stdout or os.environ.get("PIP_FIND_LINKS", "")).split())


def _imports(python: Path, name: str) -> bool:
    return subprocess.run([str(python), "-c", f"import {name}"], capture_output=True).returncode == 0


def _fit_to_cpu(python: Path) -> None:
    """The peer imports torchvision and torchaudio; those published for this torch are for CUDA."""
    site = next((python.parents[1] / "lib").glob("python*/site-packages"))
    if not _imports(python, "torchvision"):
        shutil.copy(HOOK, site / "lensmith_torchvision_cpu_hook.py")
        (site / "lensmith_torchvision_cpu_hook.pth").write_text("import lensmith_torchvision_cpu_hook\n")
    if not _imports(python, "torchaudio"):
        # It works without its compiled half; no sound is read here.
        for library in (site / "torchaudio" / "lib").glob("*.so"):
            library.unlink()
    subprocess.run([str(python), "-c", "import torchvision, torchaudio"], check=True)
