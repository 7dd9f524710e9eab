"""What the machine has for a benchmark on a GPU, and all that it lacks, told at once. No torch at import."""

from __future__ import annotations

import datetime
import importlib.util
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# What these benchmarks import, by the name it is installed under; an image with PyTorch alone lacks most.
PACKAGES = {
    "torch": "torch",
    "torchvision": "torchvision",
    "transformers": "transformers",
    "tokenizers": "tokenizers",
    "trl": "trl",
    "peft": "peft",
    "accelerate": "accelerate",
    "datasets": "datasets",
    "safetensors": "safetensors",
    "numpy": "numpy",
    "pillow": "PIL",
    "psutil": "psutil",
    "pydantic": "pydantic",
    "pyyaml": "yaml",
    "fsspec": "fsspec",
    "pyarrow": "pyarrow",
    "xxhash": "xxhash",
    "jinja2": "jinja2",
    "packaging": "packaging",
    "regex": "regex",
    "tqdm": "tqdm",
}
# Whose classes and options we use as they are in the version that is pinned.
_OWN_CLASSES = ("transformers", "trl", "peft", "accelerate")
# Dense bfloat16 FLOPs a second, of NVIDIA's data sheets (without sparsity), by what the driver calls the GPU.
PEAKS = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "B200": 2250e12,
    "A100": 312e12,
    "L40S": 362e12,
}


def lacks() -> list[str]:
    """Everything that must be installed first, each as pip takes it: with the version that was tried."""
    pins = dict(
        line.split("==")
        for line in (ROOT / "requirements/cuda.txt").read_text().splitlines()
        if "==" in line and not line.startswith(("#", " "))
    )
    here = versions()
    missing = [name for name, module in PACKAGES.items() if importlib.util.find_spec(module) is None]
    missing += [name for name in _OWN_CLASSES if name not in missing and _older(here[name], pins[name])]
    if "torchvision" in missing and "torch" not in missing:
        # Built for one torch, whatever is pinned: 0.28 for 2.13.
        pins["torchvision"] = f"0.{int(here['torch'].split('.')[1]) + 15}.*"
    return [f"{name}=={pins[name]}" if name in pins else name for name in missing]


def _older(found: str, pinned: str) -> bool:
    """Whether a version's first two numbers are less; one that is not recorded is taken as it is."""
    parts = [each.split(".")[:2] for each in (found, pinned)]
    if not all(part.isdecimal() for part in parts[0]):
        return False
    return [int(part) for part in parts[0]] < [int(part) for part in parts[1]]


def check(tiny: bool, peak: float | None) -> None:
    """Raise SystemExit with everything that keeps a benchmark from running here."""
    problems = []
    if missing := lacks():
        problems.append(f"packages are missing or too old: python -m pip install {' '.join(missing)}")
    if not tiny and importlib.util.find_spec("torch") is not None:
        problems += _gpu_problems(peak)
    if problems:
        raise SystemExit("this machine cannot run it:\n" + "\n".join(f"  {each}" for each in problems))


def _gpu_problems(peak: float | None) -> list[str]:
    import torch

    if not torch.cuda.is_available():
        return ["no GPU is seen by torch: run it where one is, or with --tiny"]
    name = torch.cuda.get_device_name()
    if peak is None and peak_of(name) is None:
        return [f"the peak of a {name} is not known here: --peak TFLOPS, dense bfloat16"]
    return []


def peak_of(name: str) -> float | None:
    """Dense bfloat16 FLOPs a second of the GPU that the driver calls so."""
    return next((flops for part, flops in PEAKS.items() if part in name), None)


def versions() -> dict[str, str]:
    """Of every package here, as installed."""
    found: dict[str, str] = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            # Imported from a folder, without its record.
            found[name] = "not recorded"
    return found


def around() -> dict[str, Any]:
    """What a result was measured on: date, GPU, and the versions that really ran."""
    import torch

    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": torch.cuda.get_device_name(),
        "cuda": torch.version.cuda,
        "versions": {"python": sys.version.split()[0], **versions()},
    }
