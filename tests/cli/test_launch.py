"""lensmith launch: what it writes, says and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lensmith.cli.main import main
from tests.conftest import ROOT, write_recipe


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    launcher = ROOT / "recipes/accelerate/deepspeed_zero3.yaml"
    return str(
        write_recipe(tmp_path / "r.yaml", tmp_path / "base", tmp_path / "forms", train__launcher=launcher)
    )


def test_it_writes_and_starts_nothing(
    recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["launch", recipe, "--home", str(tmp_path / "home"), "-o", str(tmp_path / "o"), "--json"]
    for target, start in (("local", "bash"), ("slurm", "sbatch"), ("k8s", "kubectl apply -f")):
        more = (
            ["--image", "a", "--volume", f"a:{tmp_path}", "--volume", f"b:{ROOT}"] if target == "k8s" else []
        )
        assert main([*words, "--to", target, *more]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["start"] == f"{start} {told['file']}"
        assert (told["nodes"], told["processes"]) == (1, 8)
        assert Path(told["file"]).parent == tmp_path / "o"
    assert not (tmp_path / "home").exists()
    assert len(list((tmp_path / "o").iterdir())) == 3


@pytest.mark.parametrize("target", ["slurm", "k8s"])
def test_fsdp2_is_started_as_its_config_says(
    recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], target: str
) -> None:
    config = ROOT / "recipes/accelerate/fsdp2.yaml"
    words = ["launch", recipe, "--home", str(tmp_path / "home"), "-o", str(tmp_path / "o"), "--json"]
    more = ["--image", "a", "--volume", f"a:{tmp_path}", "--volume", f"b:{ROOT}"] if target == "k8s" else []
    assert main([*words, "-s", f"train.launcher={config}", "--to", target, *more]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["nodes"], told["processes"]) == (1, 8)
    assert f"--config_file {config}" in Path(told["file"]).read_text()


def test_the_folder_of_slurms_log(recipe: str, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    words = ["launch", recipe, "--home", str(tmp_path / "home"), "-o", str(tmp_path), "--to", "slurm"]
    assert main(words) == 0
    assert (tmp_path / "home/logs").is_dir()
    assert (
        f"#SBATCH --output={tmp_path}/home/logs/bank-forms-%j.log\n"
        in (tmp_path / "bank-forms.sbatch").read_text()
    )


def test_all_that_is_wrong(recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["launch", recipe, "--home", str(tmp_path / "home"), "-o", str(tmp_path / "o")]
    assert main([*words, "--to", "slurm", "--nodes", "2", "--time", "soon", "--image", "a"]) == 2
    told = capsys.readouterr().err
    assert all(each in told for each in ("16 processes", "--time", "--image"))
    assert not (tmp_path / "o").exists()


def test_a_changed_file(recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["launch", recipe, "--home", str(tmp_path / "home"), "-o", str(tmp_path), "--to", "local"]
    assert main(words) == main(words) == 0
    written = tmp_path / "bank-forms.local.sh"
    written.write_text(written.read_text() + "# mine\n")
    assert main(words) == 2
    assert "--force" in capsys.readouterr().err
    assert main([*words, "--force"]) == 0
    assert "# mine" not in written.read_text()
