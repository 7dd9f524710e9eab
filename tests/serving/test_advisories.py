"""Known vulnerabilities of vLLM: which version they hit, what keeps them out, what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lensmith.errors import InputError
from lensmith.home import Home
from serving import advisories, engine
from serving.advisories import (
    Advisory,
    Setting,
    find_hits,
    read_advisories,
    refuse_open,
    refuse_uncovered,
    start_lines,
)
from serving.build import EngineBuild
from serving.command import engine_argv, engine_environment
from serving.profile import Places, make_profile
from serving.profile_file import Profile, parse_profile
from tests.serving.exam import CPU, CPU_BUILD, profile_artifact
from tests.serving.small import small_base, small_recipe

GOLDEN = Path(__file__).parent / "golden"
OPEN = Advisory(
    ids=["GHSA-test"],
    affected=">=0.9,<0.33",
    what="it is open",
    mitigated_by=[],
    source="https://example.org",
)
CLOSED = OPEN.model_copy(
    update={"mitigated_by": [Setting(option="--allowed-media-domains", value="media.invalid")]}
)


def started(profile: Profile | None = None) -> tuple[list[str], dict[str, str]]:
    """What an engine is started with."""
    profile = profile or parse_profile(GOLDEN / "merged_cpu.yaml")
    argv = engine_argv(profile, Places(Path("/base")), 8000, proof=False)
    return argv, engine_environment(profile, {}, proof=False)


def test_every_entry_of_the_table_can_be_judged_and_has_a_source() -> None:
    found = read_advisories()
    assert len(found) > 70
    ids = [name for each in found for name in each.ids]
    assert len(ids) == len(set(ids))
    for each in found:
        assert each.source.startswith("https://")
        assert all(re.fullmatch(r"(GHSA|CVE|PYSEC)-[0-9a-z-]+", name) for name in each.ids)
        for setting in each.mitigated_by:
            names = (setting.option, setting.without, setting.variable, setting.without_variable)
            assert sum(map(bool, names)) == 1


@pytest.mark.parametrize(
    ("version", "hit"),
    [
        ("0.8.5", False),
        ("0.9.0", True),
        ("0.9", True),
        ("0.10.0", True),
        ("0.32.1.dev3+g1234", True),
        ("0.33.0.dev1", False),
        ("0.33.0", False),
        ("0.33.0+cu130", False),
        ("someones-own", True),
    ],
)
def test_versions_are_compared_as_versions(version: str, hit: bool) -> None:
    assert OPEN.hits(version) == hit


# Reported of engines before the pinned ones, and no version with the mend is published.
UNMENDED = ["CVE-2026-105922", "CVE-2026-105775", "CVE-2026-92365"]


@pytest.mark.parametrize(("version", "more"), [("0.32.0", ["GHSA-5r3c-5x4v-8gjh"]), ("0.33.0", [])])
def test_what_is_served_with_today_has_nothing_open(version: str, more: list[str]) -> None:
    """The pinned engines. An entry that opens one of them must be seen here first."""
    hits = find_hits(version, *started())
    facts = [hit.facts() for hit in hits]
    assert [each["ids"][0] for each in facts] == [*UNMENDED, *more]
    assert facts[0]["kept_out_by"] == ["no --enable-prompt-embeds"]
    assert [each["kept_out_by"] for each in facts[3:]] == [["--allowed-media-domains media.invalid"]] * len(
        more
    )
    (line,) = start_lines(version, hits)
    assert line.startswith(f"{len(hits)} of the {len(hits)} known advisories of vLLM {version} are kept out")


def test_what_is_open_is_told_in_full_at_a_start() -> None:
    argv, environment = started()
    told = start_lines("0.33.0", find_hits("0.33.0", [*argv, "--reasoning-parser", "qwen3"], environment))
    assert len(told) == 2
    assert told[0].startswith("advisory of vLLM 0.33.0, open: CVE-2026-92365: a budget of thoughts")
    assert "https://" in told[0]
    assert told[1].startswith("2 of the 3 known advisories")
    assert start_lines("99.0", []) == []


def test_nothing_older_than_what_was_looked_through_is_served() -> None:
    for version in ("0.8.0", "0.8.0rc1", "0.32.0+cu130", "someones-own"):
        refuse_uncovered(version)
    for version in ("0.7.3", "0.7.3.post1", "0.1"):
        with pytest.raises(InputError, match=f"vLLM {version} is too old") as caught:
            refuse_uncovered(version)
        assert "requirements/" in caught.value.problems[0].mend


def test_an_engine_that_old_does_not_start_here_either(
    tmp_path: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small_recipe(tmp_path)
    base = small_base(home, recipe)
    profile = profile_artifact(home, make_profile(recipe, base, base, CPU, CPU_BUILD), base, base)
    monkeypatch.setattr(engine, "installed_engine", lambda: EngineBuild(version="0.7.3", device="cpu"))
    with pytest.raises(InputError, match="too old"), engine.running_engine(profile, home):
        pass
    assert not (home.root / "logs").exists()


def test_a_parser_of_thoughts_opens_what_has_no_mend() -> None:
    argv, environment = started()
    hits = find_hits("0.33.0", [*argv, "--reasoning-parser", "qwen3"], environment)
    with pytest.raises(InputError, match="CVE-2026-92365"):
        refuse_open("0.0.0.0", hits)
    refuse_open("127.0.0.1", hits)


def test_an_older_engine_is_refused_beyond_this_machine_with_all_that_is_open() -> None:
    hits = find_hits("0.21.0", *started())
    with pytest.raises(InputError) as caught:
        refuse_open("0.0.0.0", hits)
    told = str(caught.value)
    assert "CVE-2026-48746: the API key can be got round" in told
    assert "GHSA-85xf-c7hm-whqw" in told
    # Kept out by what every profile says.
    kept_out = ("GHSA-5r3c-5x4v-8gjh", "GHSA-3ww4-5jv9-j5gm", "PYSEC-2026-2303", "CVE-2026-114053")
    # By the guard, which lets nobody ask there.
    for name in (*kept_out, "GHSA-4xqp-c3mv-qff7", "GHSA-ph72-cqr5-qpp7", "PYSEC-2026-4353"):
        assert name not in told
    refuse_open("127.0.0.1", hits)


@pytest.mark.parametrize(
    ("setting", "slip"),
    [
        (
            Setting(option="--allowed-media-domains", value="media.invalid"),
            ["--allowed-media-domains", "a.b"],
        ),
        (Setting(without="--trust-remote-code"), ["--trust-remote-code"]),
        (Setting(variable="HF_HUB_OFFLINE", value="1"), None),
        (Setting(without_variable="PYTHONOPTIMIZE"), None),
    ],
)
def test_a_setting_counts_only_where_it_is(setting: Setting, slip: list[str] | None) -> None:
    argv, environment = started()
    assert setting.holds(argv, environment)
    if slip is None:
        environment = {"PYTHONOPTIMIZE": "1"}
    assert not setting.holds([*argv, *(slip or [])], environment)


def test_one_of_two_settings_is_not_enough() -> None:
    needs = [Setting(option="--seed"), Setting(option="--chat-template")]
    both = OPEN.model_copy(update={"mitigated_by": needs})
    argv, environment = started()
    assert not all(setting.holds(argv, environment) for setting in both.mitigated_by)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(advisories, "read_advisories", lambda: (both,))
        assert [hit.mitigated for hit in find_hits("0.32.0", argv, environment)] == [False]
        assert [
            hit.mitigated for hit in find_hits("0.32.0", [*argv, "--chat-template", "/t"], environment)
        ] == [True]


@pytest.mark.parametrize(
    ("host", "known", "starts"),
    [("0.0.0.0", OPEN, False), ("127.0.0.1", OPEN, True), ("0.0.0.0", CLOSED, True)],
)
def test_an_engine_that_other_machines_reach_does_not_start_open(
    tmp_path: Path, home: Home, monkeypatch: pytest.MonkeyPatch, host: str, known: Advisory, starts: bool
) -> None:
    recipe = small_recipe(tmp_path, host=host)
    base = small_base(home, recipe)
    profile = profile_artifact(home, make_profile(recipe, base, base, CPU, CPU_BUILD), base, base)
    monkeypatch.setenv("VLLM_API_KEY", "k")
    monkeypatch.setattr(advisories, "read_advisories", lambda: (known,))
    monkeypatch.setattr(engine, "installed_engine", lambda: EngineBuild(version="0.32.0", device="cpu"))

    def no_start(*given: object, **named: object) -> None:
        raise AssertionError("started")

    monkeypatch.setattr(engine, "run_child", no_start)
    expected = pytest.raises(AssertionError, match="started") if starts else pytest.raises(InputError)
    with expected as caught, engine.running_engine(profile, home):
        pass
    if not starts:
        assert "GHSA-test: it is open" in str(caught.value)
        assert not (home.root / "logs").exists()
