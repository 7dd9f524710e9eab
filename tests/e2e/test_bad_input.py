"""What people get wrong, through the command line: one clear error each, exit code 2, nothing made.

Most of it by the command line's function, in this process: a second of imports less each. A few commands are
real ones, to show that nothing is said beside it.
"""

from __future__ import annotations

import contextlib
import io
import json
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from lensmith.cli.main import main
from lensmith.home import Home
from tests.conftest import ROOT, RecipeMaker
from tests.e2e.command import run

# A hand-over with many bad rows lists ten of them.
MAX_LINES = 24


def refused(arguments: list[str], home: Path, *expected: str, code: int = 2) -> str:
    """Run a command that must fail with `expected` in a few lines of stderr; gives them."""
    with contextlib.redirect_stderr(io.StringIO()) as stderr:
        found = main([*arguments, "--home", str(home)])
    return told(found, stderr.getvalue(), expected, code)


def really_refused(arguments: list[str], home: Path, *expected: str) -> str:
    """The same, by the command itself."""
    command = run([*arguments, "--home", str(home)])
    return told(command.process.returncode, command.err, expected, 2)


def told(found: int, err: str, expected: Sequence[str], code: int) -> str:
    assert found == code, err
    for text in expected:
        assert text in err
    assert "Traceback" not in err
    assert len(err.splitlines()) <= MAX_LINES, err
    return err


def edited(recipe: Path, before: str, after: str) -> str:
    """Replace text in the recipe file."""
    text = recipe.read_text()
    assert before in text
    recipe.write_text(text.replace(before, after))
    return str(recipe)


def test_unknown_verb(tmp_path: Path) -> None:
    assert "did you mean 'prepare'" in run(["prepar"]).err


def test_unknown_key_is_named_with_line_and_suggestion(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    recipe = edited(make_recipe(), "learning_rate:", "learning_rat:")
    error = refused(["run", recipe], tmp_path / "home", "train.learning_rat: unknown key", "learning_rate")
    assert "recipe.yaml:" in error
    assert "train.learning_rate: is missing" in error


def test_wrong_type_and_all_problems_together(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    recipe = make_recipe(train__batch_size="two", train__seed=1.5, serve__port=70000)
    refused(["run", str(recipe)], tmp_path / "home", "train.batch_size", "train.seed", "serve.port")


def test_exponent_without_point_is_text(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    recipe = edited(make_recipe(), "learning_rate: 0.001", "learning_rate: 1e-4")
    refused(["run", recipe], tmp_path / "home", "'1e-4' is text", "write 0.0001")


def test_duplicate_key(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    recipe = edited(make_recipe(), "family: qwen3_vl", "family: qwen3_vl\nfamily: glm4v")
    refused(["run", recipe], tmp_path / "home", "family: is given twice")


def test_missing_recipe(tmp_path: Path) -> None:
    really_refused(["run", str(tmp_path / "none.yaml")], tmp_path / "home", "no such file")


def test_missing_base(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    refused(["run", str(make_recipe(base__path=tmp_path / "gone"))], tmp_path / "home", "base.path", "gone")


def test_base_of_another_family(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    recipe = make_recipe(family="glm4v")
    refused(["run", str(recipe)], tmp_path / "home", "'qwen3_vl' checkpoint", "family 'glm4v'")


def test_missing_data(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    recipe = make_recipe(data__source=tmp_path / "labels.jsonl")
    refused(["prepare", str(recipe)], tmp_path / "home", "labels.jsonl")


def test_no_rows_left(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    source = tmp_path / "labels.jsonl"
    source.write_text("")
    really_refused(["prepare", str(make_recipe(data__source=source))], tmp_path / "home", "holds no row")
    assert not list((tmp_path / "home").glob("artifacts/*/*/manifest.json"))


def test_too_many_bad_rows_write_nothing(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    recipe = make_recipe(data__max_bad=0.0)
    refused(["prepare", str(recipe)], tmp_path / "home", "max_bad")
    assert not list((tmp_path / "home").glob("artifacts/*/*/manifest.json"))


@pytest.mark.slow
def test_disk_full(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """A home on a file system of 192 KiB: the error names space, the directory holds nothing half."""
    import subprocess

    from tests.e2e.command import LENSMITH

    mount = tmp_path / "small"
    mount.mkdir()
    script = (
        f"mount -t tmpfs -o size=192k tmpfs {mount} && "
        f"{LENSMITH[0]} prepare {make_recipe()} --home {mount}/home; code=$?; "
        f"find {mount} -name manifest.json | grep -q . && code=99; exit $code"
    )
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "no space left" in done.stderr
    assert "Traceback" not in done.stderr


def test_port_of_the_launcher_is_taken(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    launcher, home = tmp_path / "launcher.yaml", tmp_path / "home"
    shipped = yaml.safe_load((ROOT / "recipes/accelerate/deepspeed_zero2.yaml").read_text())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        on_cpu = {"num_processes": 2, "use_cpu": True, "main_process_port": port}
        launcher.write_text(yaml.safe_dump(shipped | on_cpu))
        command = run(["train", str(make_recipe()), "-s", f"train.launcher={launcher}", "--home", str(home)])
    assert command.process.returncode == 2, command.err
    for text in (
        f"port {port} is in use",
        "launcher.yaml: main_process_port",
        "remove it, a free one is found",
    ):
        assert text in command.err
    assert "Traceback" not in command.err
    assert Home(home).all("run") == []
    assert command.survivors(0) == []


def test_a_home_that_cannot_be(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    refused(["run", str(make_recipe())], tmp_path / "home", "no home here", "--home DIR")


def test_promotion_needs_who_and_why(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    refused(["run", str(make_recipe()), "--promote", "production"], tmp_path / "home", "--who", "--why")


def test_policy_is_read_before_anything_is_made(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    policy, home = tmp_path / "gates.yaml", tmp_path / "home"
    policy.write_text("version: 1\nstaging: {proofs: [merge-proof, serve-proof]}\nproduction: {proofs: []}\n")
    promotion = ["--promote", "production", "--who", "ada", "--why", "a test"]
    refused(["run", str(make_recipe(gates=policy)), *promotion], home, "gates.yaml", "without a gain")
    assert Home(home).all() == []


def test_errors_as_json(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    recipe = make_recipe(serve__port=70000)
    command = run(["run", str(recipe), "--json", "--home", str(tmp_path / "home")])
    error = json.loads("".join(command.out))["error"]
    assert error["exit_code"] == 2
    assert "serve.port" in error["problems"][0]["where"]


def test_setting_over_the_recipe(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    recipe = str(make_recipe())
    assert yaml.safe_load(Path(recipe).read_text())["train"]["max_steps"] == 2
    refused(["run", recipe, "-s", "train.max_steps=-1"], tmp_path / "home", "train.max_steps")
    refused(["run", recipe, "-s", "train.max_step=1"], tmp_path / "home", "did you mean 'max_steps'")
    refused(["run", recipe, "-s", "nonsense"], tmp_path / "home", "key.path=value")
