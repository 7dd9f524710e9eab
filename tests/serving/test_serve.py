"""Serving in the foreground: what is refused before an engine starts."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from lensmith import families
from lensmith.artifact import Artifact
from lensmith.attestation import attest
from lensmith.cli.main import main as run_command
from lensmith.errors import GateRefused, InputError
from lensmith.home import Home
from serving.build import EngineBuild
from serving.engine import Engine
from serving.profile import make_profile
from serving.profile_file import Profile
from serving.serve import greeting, main, serve
from tests.release_artifacts import World
from tests.serving.exam import CPU, profile_artifact
from tests.serving.small import small_base, small_recipe


def artifact(folder: Path, home: Home, version: str = "0.0.1", host: str = "127.0.0.1") -> Artifact:
    recipe = small_recipe(folder, host=host)
    base = small_base(home, recipe)
    profile: Profile = make_profile(recipe, base, base, CPU, EngineBuild(version=version, device="cpu"))
    return profile_artifact(home, profile, base, base)


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.serve.installed_engine", lambda: EngineBuild(version="0.0.2", device="cpu"))
    monkeypatch.delenv("VLLM_API_KEY", raising=False)


def test_another_vllm_serves_only_what_it_was_proven_with(tmp_path: Path, home: Home) -> None:
    profile = artifact(tmp_path, home, host="0.0.0.0")
    with pytest.raises(InputError, match=r"vLLM 0\.0\.2 is installed, the profile was derived for 0\.0\.1"):
        serve(home, profile)
    subject = profile.body["subject"]
    attest(home, "serve-proof", subject, True, {}, {"engine_version": "0.0.3"})
    with pytest.raises(InputError, match="no serve proof passed with this version"):
        serve(home, profile)
    attest(home, "serve-proof", subject, True, {}, {"engine_version": "0.0.2"})
    # The next check is reached.
    with pytest.raises(InputError, match="open to other machines"):
        serve(home, profile)
    attest(home, "serve-proof", subject, False, {}, {"engine_version": "0.0.2"})
    with pytest.raises(InputError, match=r"its proof of 20\S+ failed with this version"):
        serve(home, profile)


def test_what_is_not_proven_is_for_this_machine_alone(
    tmp_path: Path, home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "a-secret")
    monkeypatch.setattr("serving.serve.running_engine", _not_started)
    (tmp_path / "open").mkdir()
    closed, opened = artifact(tmp_path, home, "0.0.2"), artifact(tmp_path / "open", home, "0.0.2", "0.0.0.0")
    subject = closed.body["subject"]
    with pytest.raises(NotStarted):
        serve(home, closed)
    assert capsys.readouterr().err == (
        f"not proven: no serve proof of {subject[:12]} with vLLM 0.0.2 under these settings\n"
    )
    told = r"not served on 0\.0\.0\.0(.|\n)*no serve proof of"
    with pytest.raises(GateRefused, match=told):
        serve(home, opened)
    # Of another address's profile, of another version, and of one that nobody has: none of them is of this.
    for profile, version in ((closed.id, "0.0.2"), (opened.id, "0.0.1"), ("0" * 64, "0.0.2")):
        attest(home, "serve-proof", subject, True, {"profile": profile}, {"engine_version": version})
        with pytest.raises(GateRefused, match=told):
            serve(home, opened)
    # As somebody else may have written it.
    attest(home, "serve-proof", subject, True, {}, {})
    with pytest.raises(GateRefused, match=told):
        serve(home, opened)
    attest(home, "serve-proof", subject, True, {"profile": opened.id}, {"engine_version": "0.0.2"})
    for proven in (closed, opened):
        with pytest.raises(NotStarted):
            serve(home, proven)
    assert capsys.readouterr().err == ""


def test_what_failed_its_proof_is_not_served(
    tmp_path: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.serve.running_engine", _not_started)
    profile = artifact(tmp_path, home, "0.0.2")
    evidence, subject = {"profile": profile.id}, profile.body["subject"]
    failed = {"engine_version": "0.0.2", "findings": ["7 rows differ"]}
    attest(home, "serve-proof", subject, False, evidence, failed)
    with pytest.raises(GateRefused, match=r"the serve proof of 20\S+ failed: 7 rows differ"):
        serve(home, profile)
    attest(home, "serve-proof", subject, True, evidence, {"engine_version": "0.0.2"})
    with pytest.raises(NotStarted):
        serve(home, profile)


class NotStarted(Exception):
    """An engine was asked for."""


def _not_started(*_: object) -> None:
    raise NotStarted


def test_a_profile_of_another_device_is_refused(
    tmp_path: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = artifact(tmp_path, home, "0.0.2")
    cuda = EngineBuild(version="0.0.2", device="cuda")
    monkeypatch.setattr("serving.serve.installed_engine", lambda: cuda)
    with pytest.raises(InputError, match="derived for a cpu engine") as error:
        serve(home, profile)
    assert "built for cuda" in str(error.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.0.7", "::", "gpu-node-3"])
def test_other_machines_need_a_key(tmp_path: Path, home: Home, host: str) -> None:
    with pytest.raises(InputError, match="VLLM_API_KEY is not set"):
        serve(home, artifact(tmp_path, home, "0.0.2", host))


def test_what_the_engine_does_otherwise_with_images_is_said(
    tmp_path: Path, home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = artifact(tmp_path, home, "0.0.2")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match="cannot be used"):
            serve(home, profile, port)
        assert "images" not in capsys.readouterr().err
        known = replace(families.get("qwen3_vl"), vllm_images={"cpu": "it reads them one by one"})
        monkeypatch.setitem(families.FAMILIES, "qwen3_vl", known)
        with pytest.raises(InputError, match="cannot be used"):
            serve(home, profile, port)
    assert "answers about images differ" in capsys.readouterr().err


def test_the_program_tells_errors_by_exit_code(
    tmp_path: Path, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = artifact(tmp_path, home, "0.0.2", "0.0.0.0")
    assert main([str(profile.path), "--home", str(home.root)]) == 2
    assert "open to other machines" in capsys.readouterr().err
    (profile.path / "profile.yaml").write_text("version: 1\n")
    assert main([str(profile.path), "--home", str(home.root)]) == 4


def test_the_greeting_names_address_and_log() -> None:
    text = greeting(Engine("http://127.0.0.1:8000", "bank-forms", "0.32.0", Path("/logs/x.log"), 1))
    assert "serving bank-forms at http://127.0.0.1:8000/v1 (vLLM 0.32.0; log: /logs/x.log)" in text
    assert '"model": "bank-forms"' in text
    assert "Authorization" not in text


def test_the_greeting_sends_the_key_where_one_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "a-secret")
    text = greeting(Engine("http://127.0.0.1:8000", "bank-forms", "0.32.0", Path("/logs/x.log"), 1))
    assert '-H "Authorization: Bearer $VLLM_API_KEY"' in text
    assert "a-secret" not in text


def test_an_edited_release_is_not_served(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The operator reads what stands in its directory; what is served is the profile's own artifact."""
    release = world.release("one")
    started: list[Artifact] = []
    monkeypatch.setattr("lensmith.cli.verbs.serve._is_live", lambda _: False)
    monkeypatch.setattr("serving.serve.serve", lambda _, profile, *__, **___: started.append(profile) or 0)
    words = ["serve", release.short, "--home", str(world.home.root)]
    assert run_command(words) == 0
    assert [each.id for each in started] == [release.body["profile"]]
    copy = next(path for path in (release.path / "profile").iterdir() if path.is_file())
    copy.write_bytes(copy.read_bytes() + b"# port: 9000")
    assert run_command(words) == 4
    assert f"profile/{copy.name}" in capsys.readouterr().err
    assert len(started) == 1
