"""What cannot be launched is told before anything is written, all of it at once."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune.cluster.job import ROOT, Job, Target, Wishes, make_job
from finetune.cluster.slurm import seconds_of
from lensmith.errors import InputError, Problem
from lensmith.home import Home
from lensmith.recipe import load_recipe
from tests.conftest import write_recipe

NODES = ROOT / "recipes/accelerate/deepspeed_zero3_nodes.yaml"
ONE = ROOT / "recipes/accelerate/deepspeed_zero3.yaml"

JobMaker = Callable[..., Job]


@pytest.fixture
def make(tmp_path: Path) -> JobMaker:
    """Make a job from a recipe; "train__launcher" sets a key of it, other keywords are wishes."""

    def job(target: Target, *settings: str, place: Path = tmp_path, **given: Any) -> Job:
        keys = {name: value for name, value in given.items() if "__" in name}
        wishes = Wishes(**{name: value for name, value in given.items() if "__" not in name})
        keys = {"train__launcher": ONE, **keys}
        path = write_recipe(place / "recipe.yaml", place / "base", place / "forms", **keys)
        return make_job(target, load_recipe(path, settings), path, settings, Home(place / "home"), wishes)

    return job


def problems(make: JobMaker, target: Target, *settings: str, **given: Any) -> dict[str, Problem]:
    with pytest.raises(InputError, match=f"--to {target}") as error:
        make(target, *settings, **given)
    return {problem.where: problem for problem in error.value.problems}


def test_the_launcher_config_says_how_many(make: JobMaker) -> None:
    one, nodes = make("slurm"), make("slurm", train__launcher=NODES)
    assert (one.nodes, one.gpus, one.processes, one.cpus) == (1, 8, 8, 64)
    assert (nodes.nodes, nodes.gpus, nodes.processes) == (2, 8, 8)
    assert make("slurm", nodes=1, gpus=8) == one
    cpu = make("local", train__launcher=ROOT / "recipes/accelerate/cpu.yaml", gpus=0)
    assert (cpu.nodes, cpu.gpus, cpu.processes) == (1, 0, 1)


@pytest.mark.parametrize(("nodes", "gpus"), [(2, 8), (1, 4), (8, 1), (None, 4), (2, None)])
def test_another_number_of_processes(make: JobMaker, nodes: int | None, gpus: int | None) -> None:
    found = problems(make, "slurm", nodes=nodes, gpus=gpus)
    assert list(found) == [str(ONE)]
    asked = (nodes or 1, 8 if gpus is None else gpus)
    assert f"{asked[0]} nodes with {asked[1]} GPUs each are {asked[0] * asked[1]}" in found[str(ONE)].what
    assert "num_machines 1, num_processes 8" in found[str(ONE)].what
    mend = f"num_machines: {asked[0]} and num_processes: {asked[0] * asked[1]}"
    assert mend in found[str(ONE)].mend


def test_gpus_of_a_launcher_without(make: JobMaker) -> None:
    cpu = ROOT / "recipes/accelerate/cpu.yaml"
    assert "on CPUs" in problems(make, "slurm", train__launcher=cpu, gpus=1)[str(cpu)].what


def test_a_method_that_the_launcher_cannot_divide(make: JobMaker) -> None:
    """In the job it would be found by the nodes, after their wait in the queue."""
    found = problems(make, "slurm", train__method="qlora", nodes=2)
    assert list(found) == ["train.launcher", str(ONE)]
    assert "a base in 4 bits cannot be trained so" in found["train.launcher"].what


def test_local_is_one_machine_and_torchrun_several(make: JobMaker) -> None:
    assert "2 machines" in problems(make, "local", train__launcher=NODES)["--to local"].what
    assert problems(make, "torchrun")["--to torchrun"].mend == "--to local"
    assert make("torchrun", train__launcher=NODES).nodes == 2


def test_what_accelerate_starts_only_with_mpi(make: JobMaker, tmp_path: Path) -> None:
    path = tmp_path / "cpu.yaml"
    content = {"distributed_type": "MULTI_CPU", "num_machines": 2, "num_processes": 2, "use_cpu": True}
    path.write_text(yaml.safe_dump(content))
    assert f"{path} distributed_type" in problems(make, "torchrun", train__launcher=path)


def test_how_long_a_job_has_to_stop(make: JobMaker) -> None:
    """The recipe's time, or what the command says; not longer than the whole job."""
    assert make("slurm").grace == 600
    assert make("slurm", train__stop_grace=77).grace == 77
    assert make("slurm", train__stop_grace=77, grace=30).grace == 30
    found = problems(make, "slurm", train__stop_grace=77, time="1:17")
    assert found["train.stop_grace"].what == "the job would be stopped at once: 77 s before its 77 s are over"
    assert make("slurm", train__stop_grace=77, time="1:18").time == "1:18"
    assert list(problems(make, "slurm", train__stop_grace=65536)) == ["train.stop_grace"]
    assert list(problems(make, "slurm", time="2", grace=120)) == ["--grace"]


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("90", 5400),
        ("2:30", 150),
        ("1:02:03", 3723),
        ("2-3", 183_600),
        ("1-0:5", 86_700),
        ("1-1:1:1", 90_061),
    ],
)
def test_a_time_is_read_as_sbatch_reads_it(time: str, seconds: int) -> None:
    assert seconds_of(time) == seconds


def test_all_at_once(make: JobMaker) -> None:
    found = problems(make, "k8s", "train.wandb=online", nodes=3, time="1", cpus=0, rdma="x", name="9-things-")
    assert set(found) == {
        str(ONE),
        "--time",
        "--cpus",
        "--rdma",
        "--image",
        "--secret",
        "the recipe's release.name",
        "--home",
        "base.path",
        "the data, labels.jsonl",
        "the checkout",
        "the recipe",
    }


def test_options_of_other_targets(make: JobMaker) -> None:
    given: dict[str, Any] = {"image": "a", "volumes": ["a:/a"], "shm": 1, "rdma": "a/b", "code": Path("/a")}
    given |= {"sbatch": ["qos=a"], "time": "1", "queue": "a", "memory": 1, "grace": 1, "restarts": 0}
    found = problems(make, "local", **given)
    assert {where for where, each in found.items() if "is for --to" in each.what} == {
        *("--image", "--volume", "--shm", "--rdma", "--code", "--sbatch", "--time", "--queue"),
        *("--memory", "--grace", "--restarts"),
    }


@pytest.mark.parametrize(
    ("name", "nodes", "better"),
    [
        ("2024-forms", 1, "run-2024-forms"),
        ("forms-", 1, "forms"),
        ("a" * 49, 1, "a" * 48),
        ("a" * 48, 1, ""),
        ("a" * 48, 11, "a" * 47),
        ("a" * 60, 11, "a" * 47),
    ],
)
def test_names_of_pods(make: JobMaker, name: str, nodes: int, better: str, tmp_path: Path) -> None:
    """JobSet's own check: JOBSET-node-0-INDEX-abcde is a DNS label of at most 63 characters."""
    launcher = tmp_path / "launcher.yaml"
    content = yaml.safe_load(NODES.read_text())
    launcher.write_text(yaml.safe_dump({**content, "num_machines": nodes, "num_processes": 8 * nodes}))
    given = {"train__launcher": launcher, "release__name": name, "image": "a", "code": Path("/code")}
    given["volumes"] = [f"all:{tmp_path}"]
    if not better:
        assert make("k8s", **given).name == name
        return
    assert problems(make, "k8s", **given)["the recipe's release.name"].mend == f"--name {better}"
    assert make("k8s", **given, name=better).name == better
    assert len(f"{better}-node-0-{nodes - 1}-abcde") <= 63
    assert make("slurm", train__launcher=launcher, release__name=name).name == name


@pytest.mark.parametrize("name", ["../up", "a b", "A", "a\n", "-a", "a" * 63, "$(id)"])
def test_names_that_are_none(make: JobMaker, name: str) -> None:
    assert "--name" in problems(make, "slurm", name=name)


@pytest.mark.parametrize("letter", ["\n", "\r", "\x1b", "\x85", "\u2028", "\x00"])
@pytest.mark.parametrize("target", ["local", "slurm"])
def test_no_value_holds_the_end_of_a_line(make: JobMaker, target: Target, letter: str) -> None:
    """A comment or an #SBATCH line would end there, and the rest be read as something else."""
    setting = f'release.intended_use="a{letter}touch pwned"'
    with pytest.raises(InputError) as error:
        make(target, setting, python=f"/a{letter}b", name="forms")
    told = {problem.where for problem in error.value.problems}
    # YAML itself refuses most of them, before.
    assert "--python" in told or any("is not a YAML value" in each.what for each in error.value.problems)
    assert "--python" in problems(make, target, python=f"/a{letter}b")


def test_paths_that_sbatch_would_read(make: JobMaker, tmp_path: Path) -> None:
    for name in ("a b", "100%", 'a"b', "a#b", "a\\b", "é"):
        (tmp_path / name).mkdir()
        assert "--home" in problems(make, "slurm", place=tmp_path / name)
        assert make("local", place=tmp_path / name).home == tmp_path / name / "home"


@pytest.mark.parametrize(
    "option",
    [
        "--qos=high",
        "qos=a b",
        "comment=a#b",
        "qos=$(id)",
        "nodes=9",
        "gres=gpu:1",
        "output=/x",
        "wrap=x",
        "=",
    ],
)
def test_options_that_sbatch_would_read_otherwise(make: JobMaker, option: str) -> None:
    assert "--sbatch" in problems(make, "slurm", sbatch=[option])


def test_options_of_sbatch(make: JobMaker) -> None:
    given = ("account=vision", "exclusive", "constraint=h100|h200", "nodelist=a[1-4]")
    assert make("slurm", sbatch=given, queue="gpu,big", time="1-12:00:00").sbatch == given
    for time in ("1h", "1:2:3:4", "", "-1"):
        assert not time or "--time" in problems(make, "slurm", time=time)
    assert "--queue" in problems(make, "slurm", queue="gpu other")


def test_what_pods_do_not_see(make: JobMaker, tmp_path: Path) -> None:
    given: dict[str, Any] = {"image": "a", "code": Path("/opt/code")}
    found = problems(make, "k8s", **given)
    assert set(found) == {"--home", "base.path", "the data, labels.jsonl", "the recipe"}
    given["volumes"] = [f"home:{tmp_path / 'home'}", f"data:{tmp_path / 'forms'}", f"base:{tmp_path}/base"]
    assert set(problems(make, "k8s", **given)) == {"the recipe"}
    job = make("k8s", **{**given, "volumes": [f"all:{tmp_path}"]})
    assert job.script == Path("/opt/code/scripts/train.py")
    assert job.config == Path("/opt/code/recipes/accelerate/deepspeed_zero3.yaml")
    assert job.recipe == tmp_path / "recipe.yaml"
    # Of a store: no volume holds it, and none has to.
    data = {"data__source": "s3://bucket/labels.jsonl"}
    assert make("k8s", **{**given, "volumes": [f"all:{tmp_path}"]}, **data).volumes


@pytest.mark.parametrize("volume", ["/a", "a", "a:b", "a:/", "A:/a", "a:/a:ro", ":/a", "a b:/a"])
def test_volumes_that_are_none(make: JobMaker, volume: str) -> None:
    assert "is not CLAIM:PATH" in problems(make, "k8s", image="a", volumes=[volume])["--volume"].what


@pytest.mark.parametrize(
    ("wish", "where"),
    [
        ({"image": "a b"}, "--image"),
        ({"image": "a", "memory": 8}, "--memory"),
        ({"image": "a", "memory": 8, "shm": 8}, "--shm"),
        ({"image": "a", "queue": "a/b"}, "--queue"),
        ({"image": "a", "volumes": ["a:/a", "b:/a"]}, "--volume"),
        ({"image": "a", "code": Path("code")}, "--code"),
        ({"image": "a", "secret": "wandb"}, "--secret"),
        ({"image": "a", "grace": 0}, "--grace"),
        ({"image": "a", "grace": 65536}, "--grace"),
    ],
)
def test_wishes_that_pods_cannot_have(make: JobMaker, wish: dict[str, Any], where: str) -> None:
    assert where in problems(make, "k8s", **wish)


def test_the_key_of_wandb(make: JobMaker) -> None:
    assert "nothing would read it" in problems(make, "slurm", secret="/a.env")["--secret"].what
    assert "is relative" in problems(make, "slurm", "train.wandb=online", secret="a.env")["--secret"].what
    assert make("slurm", "train.wandb=online").secret == ""
    given: dict[str, Any] = {"image": "a", "secret": "No Secret"}
    assert "names no Secret" in problems(make, "k8s", "train.wandb=online", **given)["--secret"].what


def test_settings_mean_the_same_from_anywhere(
    make: JobMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "where: I stand #1").mkdir()
    monkeypatch.chdir(tmp_path / "where: I stand #1")
    config = f"train.launcher={shlex.quote(str(ONE))}"
    settings = (config, "base.path=models/x", "data.source=s3://bucket/a.jsonl", "train.epochs=2.0")
    job = make("local", *settings)
    assert job.settings[0] == f"train.launcher={ONE}"
    assert job.settings[2:] == settings[2:]
    there = load_recipe(tmp_path / "recipe.yaml", settings)
    monkeypatch.chdir("/")
    assert load_recipe(tmp_path / "recipe.yaml", job.settings) == there
    assert there.base.path == tmp_path / "where: I stand #1" / "models/x"


def test_relative_data_in_a_setting(make: JobMaker) -> None:
    sources = 'data={answer: json, sources: [{path: "forms/a.jsonl"}]}'
    assert "is relative" in problems(make, "local", sources)["-s data.sources"].what
