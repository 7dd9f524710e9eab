"""Every family divided over two processes, one of which has no image: the gradients of one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lensmith import families
from tests.conftest import ROOT
from tests.families.conftest import Checkpoint
from tests.family_results import Shows

pytestmark = pytest.mark.slow

SCRIPT = ROOT / "tests/families/two_processes.py"
MIXED = {name: f"{name}:lora:image:text" for name in families.FAMILIES}
# Tiles are a second run of the tower, that an image without any leaves out.
TILED = [f"{name}:lora:tiles:image" for name, family in families.FAMILIES.items() if family.vision_run.views]
FILMED = [f"{name}:lora:film:text" for name, family in families.FAMILIES.items() if family.video]
FILM_AND_IMAGE = "qwen3_vl:lora:film:image"
DORA = "qwen3_vl:dora:image:text"
EXPERTS = [f"{name}:experts:image:text" for name, family in families.FAMILIES.items() if family.experts]
DENSE = [MIXED[name] for name, family in families.FAMILIES.items() if not family.experts]
FSDP2 = [f"{case}:fsdp2" for case in (*DENSE, *EXPERTS, *TILED, DORA)]
# Processes that wait for each other are stopped by gloo after a minute; this is for all else that may hang.
LIMIT_S = 600
# Sums of float32 in another order.
TOLERANCE = 2e-5

Steps = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def checkpoints(made: dict[str, Checkpoint]) -> Path:
    """The folder that holds every family's checkpoint."""
    return made["qwen3_vl"].root.parent


def take_steps(
    checkpoints: Path, out: Path, cases: list[str], limit_s: int, **environment: str
) -> subprocess.CompletedProcess[str]:
    environment["DS_ACCELERATOR"] = "cpu"
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [sys.executable, *launch, str(SCRIPT), str(checkpoints), str(out), *cases],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'scripts'}", "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=limit_s,
    )


@pytest.fixture(scope="module")
def steps(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Steps:
    """By case what each process found; one start for all of them."""
    out = tmp_path_factory.mktemp("steps")
    cases = [*MIXED.values(), *TILED, *FILMED, FILM_AND_IMAGE, DORA, *EXPERTS, *FSDP2]
    ended = take_steps(checkpoints, out, cases, LIMIT_S)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return {
        case: [json.loads((out / f"{case}.{rank}.json").read_bytes()) for rank in (0, 1)] for case in cases
    }


def assert_as_one(found: list[dict[str, Any]]) -> None:
    """Both processes took part in the same collectives and have the gradients of one process."""
    left, right = found
    assert left["collectives"] == right["collectives"]
    assert sum("all_gather" in each for each in left["collectives"]) > 10
    assert max(left["differs"], right["differs"]) < TOLERANCE


@pytest.mark.parametrize("family", families.FAMILIES)
def test_an_image_on_one_process_alone(steps: Steps, family: str, shows: Shows) -> None:
    shows(family, "", "zero3")
    assert_as_one(steps[MIXED[family]])


@pytest.mark.parametrize("case", FSDP2)
def test_fsdp2_in_place_of_zero3(steps: Steps, case: str, shows: Shows) -> None:
    """Where there are experts they are adapted too; that weights are divided is checked before the step."""
    shows(case.partition(":")[0], "", "fsdp2")
    left, right = steps[case]
    assert max(left["differs"], right["differs"]) < TOLERANCE


@pytest.mark.parametrize("case", TILED)
def test_tiles_on_one_process_alone(steps: Steps, case: str) -> None:
    assert_as_one(steps[case])


@pytest.mark.parametrize("case", [*FILMED, FILM_AND_IMAGE])
def test_a_video_on_one_process_alone(steps: Steps, case: str) -> None:
    """However many frames it has, the tower runs over it once, as it does over an image."""
    assert_as_one(steps[case])


def test_dora(steps: Steps) -> None:
    """PEFT reads weights of the base outside of their module; DeepSpeed gathers them when they are read."""
    assert_as_one(steps[DORA])


@pytest.mark.parametrize("case", EXPERTS)
def test_adapted_experts(steps: Steps, case: str) -> None:
    """Gathered with their adapter, a layer at a time: PEFT reads them outside of their module too."""
    assert_as_one(steps[case])


@pytest.mark.parametrize("case", [MIXED["qwen3_vl"], *TILED])
def test_without_the_blank_image_they_do_not_come_back(checkpoints: Path, tmp_path: Path, case: str) -> None:
    ended = take_steps(checkpoints, tmp_path, [case], LIMIT_S, WITHOUT_BLANK_IMAGE="1")
    found = [json.loads(path.read_bytes()) for path in tmp_path.glob("*.json")]
    assert ended.returncode != 0 or any("error" in each for each in found)
    said = ended.stderr + "".join(each.get("error", "") for each in found)
    assert "gloo::" in said or "gloo/transport" in said, "they ended, but not for each other"
