"""Adapters that come and go: what is refused, what a wrong answer does, what a kill leaves."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lensmith.artifact import Artifact
from lensmith.cli.main import main
from lensmith.dataset import HELD_OUT_FILE, held_out_reads
from lensmith.errors import GateRefused, InputError, IntegrityError
from lensmith.home import Home
from lensmith.recipe import Recipe
from lensmith.row_file import Row, write_rows
from lensmith.sample import Message, Sample, Text
from lensmith.serve_settings import Live
from lensmith.trace import TraceRow
from serving.engine import Engine
from serving.fleet import engineering, read_members
from serving.live import load_adapter, serve_live, standing, unload_adapter
from serving.live_state import LiveState, find_state
from serving.profile import make_profile
from tests.serving.exam import CPU, CPU_BUILD, profile_artifact
from tests.serving.live_double import TOKEN, LiveDouble, answer_of
from tests.serving.live_releases import VERSION, make_live_release, make_trace, say_proven
from tests.serving.small import small_base, small_recipe, small_run

ROWS = 12


def with_live(recipe: Recipe, max_adapters: int = 3, **serve: Any) -> Recipe:
    live = Live(max_adapters=max_adapters, max_rank=8)
    update = {"mode": "adapter", "live": live, "tower_connector_lora": True, **serve}
    return recipe.model_copy(update={"serve": recipe.serve.model_copy(update=update)})


def conversation(at: int) -> tuple[Message, Message]:
    return Message("user", (Text(f"read {at}"),)), Message("assistant", (Text("x"),))


class Room:
    """A home with a base, releases of adapters beside it, and a server that has none of them yet."""

    def __init__(self, folder: Path, home: Home) -> None:
        self.folder, self.home, self.double = folder, home, LiveDouble()
        self.recipe = with_live(small_recipe(folder))
        self.base = small_base(home, self.recipe)
        rows = [Row(Sample(f"row-{at:02}", f"g-{at}", conversation(at)), ()) for at in range(ROWS)]
        with home.create("held_out", "h" * 64, {}) as draft:
            write_rows(draft.path / HELD_OUT_FILE, rows)
            draft.body.update(rows=ROWS)
        self.held_out = draft.artifact
        for dtype in ("float32", "bfloat16"):
            update = {"mode": "merged", "live": None, "dtype": dtype}
            recipe = self.recipe.model_copy(update={"serve": self.recipe.serve.model_copy(update=update)})
            profile = make_profile(recipe, self.base, self.base, CPU, CPU_BUILD)
            asked = profile_artifact(home, profile, self.base, self.base)
            make_trace(home, asked, self.held_out, self.rows(None), "base")
        self.forms, self.checks, self.notes = (self.release(name) for name in ("forms", "checks", "notes"))
        self.state = LiveState(home, self.double.port)
        self.open()

    def rows(self, adapter: str | None) -> list[TraceRow]:
        return [
            TraceRow(
                row=f"row-{at:02}",
                group=f"g-{at}",
                image_digests=[],
                prompt_ids=[1, 9, 9],
                image_tokens=2,
                answer_ids=answer_of(adapter, f"read {at}"),
                answer_text="x",
                answer_logprobs=[-0.1, -0.1],
                margins=[2.9, 2.9],
                finish="stop",
            )
            for at in range(ROWS)
        ]

    def release(
        self, name: str, seed: int = 0, recipe: Recipe | None = None, *, proven: bool = True
    ) -> Artifact:
        run = small_run(self.home, self.base, ["language"], note=f"{name} {seed}")
        rows = self.rows(str(run.path))
        return make_live_release(
            self.home, recipe or self.recipe, name, run, self.base, self.held_out, rows, proven=proven
        )

    def open(self, pid: int | None = None) -> None:
        """Say that the server runs."""
        engine = Engine(self.double.url, "base", VERSION, self.folder / "log", pid or os.getpid(), TOKEN)
        self.state.opened(engine, self.profile(self.forms))

    def profile(self, release: Artifact) -> Artifact:
        return self.home.by_id(release.body["profile"])

    def folder_of(self, release: Artifact) -> str:
        return str(self.home.by_id(release.body["subject"]).path)

    def states(self) -> dict[str, str]:
        return {each.name: each.state for each in standing(self.home)[1]}


@pytest.fixture
def room(tmp_path: Path, home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    made = Room(tmp_path, home)
    yield made
    made.double.close()


def test_adapters_come_and_go_and_are_told(room: Room, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--home", str(room.home.root), "--json"]
    assert main(["load", room.forms.short, *words]) == 0
    assert json.loads(capsys.readouterr().out) == {"name": "forms", "release": room.forms.id}
    load_adapter(room.home, room.checks, room.double.port)
    assert room.states() == {"checks": "live", "forms": "live"}
    assert room.state.wanted == {"forms": room.forms.id, "checks": room.checks.id}
    assert main(["live", *words]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["url"] == room.double.url
    assert told["adapters"][0] == {"name": "checks", "release": room.checks.id, "state": "live"}
    assert main(["unload", "forms", *words]) == 0
    assert room.states() == {"checks": "live"}
    assert list(room.double.adapters) == ["checks"]
    assert any("live check of forms" in each.reason for each in held_out_reads(room.home, room.held_out))


def test_an_adapter_whose_answers_are_another_s_is_unloaded_again(room: Room) -> None:
    load_adapter(room.home, room.checks)
    room.double.slots["forms"] = room.folder_of(room.checks)
    with pytest.raises(GateRefused, match="not live: forms") as caught:
        load_adapter(room.home, room.forms)
    assert len(caught.value.problems) == 8
    assert "forms, row row-00: answer is not the proof's" in str(caught.value)
    assert list(room.double.adapters) == ["checks"]
    assert room.state.wanted == {"checks": room.checks.id}


def test_an_adapter_that_is_not_applied_is_unloaded_again(room: Room) -> None:
    room.double.slots["forms"] = None
    with pytest.raises(GateRefused, match="the base's own answer: the adapter is not applied"):
        load_adapter(room.home, room.forms)
    assert room.double.adapters == {}


def test_a_neighbour_whose_answers_change_keeps_the_newcomer_out(room: Room) -> None:
    load_adapter(room.home, room.checks)
    room.double.slots["checks"] = room.folder_of(room.forms)
    with pytest.raises(GateRefused, match="checks, row row-00"):
        load_adapter(room.home, room.forms)
    assert list(room.double.adapters) == ["checks"]


def test_rows_that_the_base_answers_otherwise_are_asked_first(room: Room) -> None:
    """An answer within the bounds of the proof, and the base's where it was another, is not let through."""
    run = small_run(room.home, room.base, ["language"], note="narrow")
    rows = room.rows(None)
    # The lead is below bfloat16's bound: the base's answer is allowed, alone.
    rows[-1] = room.rows(str(run.path))[-1].model_copy(update={"margins": [0.01, 2.9]})
    recipe = with_live(small_recipe(room.folder), dtype="bfloat16")
    narrow = make_live_release(room.home, recipe, "narrow", run, room.base, room.held_out, rows)
    shared = engineering(room.profile(narrow))
    assert read_members(room.home, [narrow], shared, VERSION)[0].name == "narrow"
    room.state.opened(room.state.server().engine, room.profile(narrow))
    room.double.slots["narrow"] = None
    with pytest.raises(GateRefused, match=r"narrow, row row-11: the answer is the base's, in the proof"):
        load_adapter(room.home, narrow)


def test_only_a_proven_adapter_is_loaded(room: Room) -> None:
    unproven = room.release("other", proven=False)
    with pytest.raises(GateRefused, match=f"no serve proof of adapter .* with vLLM {VERSION} under these"):
        load_adapter(room.home, unproven)
    trace = make_trace(room.home, room.profile(unproven), room.held_out, room.rows("x"))
    say_proven(room.home, room.profile(unproven), trace, passed=False)
    with pytest.raises(GateRefused, match=r"the serve proof of .* failed: the answers differ"):
        load_adapter(room.home, unproven)
    shared = engineering(room.profile(room.forms))
    with pytest.raises(GateRefused, match=r"with vLLM 0\.33\.0"):
        read_members(room.home, [room.forms], shared, "0.33.0")
    assert room.double.posts == []


def test_a_proof_under_other_settings_is_none_for_this_engine(room: Room) -> None:
    """The run of a release is proven, but in an engine with another room."""
    run = room.home.by_id(room.forms.body["subject"])
    other = with_live(small_recipe(room.folder), 2)
    make_live_release(room.home, other, "again", run, room.base, room.held_out, room.rows(str(run.path)))
    named = make_live_release(
        room.home, room.recipe, "again", run, room.base, room.held_out, [], proven=False
    )
    shared = engineering(room.profile(named))
    # Proven as `forms` under the very same settings: the name is none of them.
    assert read_members(room.home, [named], shared, VERSION)
    for each in (room.home.root / "attestations").rglob("*.json"):
        if json.loads(each.read_text())["evidence"]["profile"] == room.forms.body["profile"]:
            each.unlink()
    with pytest.raises(GateRefused, match="no serve proof"):
        read_members(room.home, [named], shared, VERSION)


def test_all_that_does_not_fit_the_engine_is_said_together(room: Room) -> None:
    others = with_live(small_recipe(room.folder), 4, max_model_len=500, host="127.0.0.2")
    misfit = room.release("misfit", recipe=others)
    alone = room.release("alone", recipe=with_live(small_recipe(room.folder), live=None))
    shared = engineering(room.profile(room.forms))
    releases = [room.forms, room.release("forms", 1), misfit, alone, room.release("base")]
    with pytest.raises(InputError) as caught:
        read_members(room.home, releases, shared, VERSION)
    told = str(caught.value)
    assert "adapter.room.max_adapters: 4, the engine's is 3" in told
    assert "host: '127.0.0.2', the engine's is '127.0.0.1'" in told
    assert "max_model_len: 500, the engine's is" in told
    assert f"alone ({alone.short}): has no room for others" in told
    assert "forms: is the name of more than one adapter" in told
    assert "base: is what the base is called" in told
    assert "serve.live.max_adapters: 4 adapters, there is room for 3" in told
    assert len(caught.value.problems) == 8, told


def test_another_base_is_another_engine(room: Room, tmp_path: Path) -> None:
    recipe = with_live(small_recipe(tmp_path / "other"))
    (recipe.base.path / "tokenizer_config.json").write_text('{"a": 1}')
    base = small_base(room.home, recipe)
    run = small_run(room.home, base, ["language"])
    other = make_live_release(room.home, recipe, "other", run, base, room.held_out, [])
    with pytest.raises(InputError, match="another base needs an engine of its own"):
        load_adapter(room.home, other)


def test_an_edited_adapter_is_not_loaded(room: Room) -> None:
    path = Path(room.folder_of(room.forms)) / "adapter_config.json"
    path.write_text(path.read_text().replace('"lora_alpha": 8', '"lora_alpha": 9'))
    with pytest.raises(IntegrityError, match="not what was released"):
        load_adapter(room.home, room.forms)
    assert room.double.posts == []


def test_a_name_is_one_adapter_s_at_a_time(room: Room) -> None:
    load_adapter(room.home, room.forms)
    again = room.release("forms", 1)
    with pytest.raises(InputError, match=r"is live as release .* \(lensmith unload forms\)"):
        load_adapter(room.home, again)
    unload_adapter(room.home, "forms")
    with pytest.raises(InputError, match="vLLM remembers images as its tower saw them"):
        load_adapter(room.home, again)
    assert room.double.adapters == {}
    # Of one that never was another's nothing is remembered.
    load_adapter(room.home, room.forms)
    assert load_adapter(room.home, room.forms).name == "forms", "loading it twice is no error"


def test_without_tower_adapters_a_name_can_change_hands(room: Room) -> None:
    recipe = with_live(small_recipe(room.folder), tower_connector_lora=False)
    first, second = room.release("words", 0, recipe), room.release("words", 1, recipe)
    room.state.opened(room.state.server().engine, room.profile(first))
    load_adapter(room.home, first)
    unload_adapter(room.home, "words")
    load_adapter(room.home, second)
    assert room.double.adapters == {"words": room.folder_of(second)}


def test_a_load_that_was_killed_is_finished_by_the_same_call(room: Room) -> None:
    room.double.adapters["forms"] = room.folder_of(room.forms)
    assert room.states() == {"forms": "unchecked"}
    load_adapter(room.home, room.forms)
    assert room.states() == {"forms": "live"}
    assert room.double.posts == [], "the engine had it"
    # What a killed load of another release left makes room.
    room.double.adapters["checks"] = room.folder_of(room.notes)
    load_adapter(room.home, room.checks)
    assert room.double.posts == ["unload_lora_adapter checks", "load_lora_adapter checks"]


def test_a_killed_load_that_the_engine_was_still_at_is_finished(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine has the adapter between our looking and our asking for it, and refuses the name."""
    seen: list[dict[str, str]] = [{}]
    monkeypatch.setattr("serving.live._loaded", lambda _: seen.pop() if seen else dict(room.double.adapters))
    room.double.adapters["forms"] = room.folder_of(room.notes)
    with pytest.raises(InputError, match=r"400: .*has already been loaded"):
        load_adapter(room.home, room.forms)
    seen.append({})
    room.double.adapters["forms"] = room.folder_of(room.forms)
    load_adapter(room.home, room.forms)
    assert room.double.posts == ["load_lora_adapter forms"] * 2
    assert room.state.wanted == {"forms": room.forms.id}


def test_an_unload_that_was_killed_is_finished_by_the_same_call(room: Room) -> None:
    load_adapter(room.home, room.forms)
    room.double.adapters.clear()
    assert room.states() == {"forms": "missing"}
    unload_adapter(room.home, "forms")
    assert room.states() == {}
    with pytest.raises(InputError, match="no adapter is called 'forms'"):
        unload_adapter(room.home, "forms")


def test_an_interrupted_check_leaves_nothing_live(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr("serving.live.check_live", stop)
    with pytest.raises(KeyboardInterrupt):
        load_adapter(room.home, room.forms)
    assert room.double.adapters == {}
    assert room.state.wanted == {}


def test_without_a_server_nothing_is_loaded_and_anything_unloaded(room: Room) -> None:
    room.state.want({"forms": room.forms.id, "checks": room.checks.id})
    room.open(pid=1 << 22)
    assert room.states() == {"forms": "waiting", "checks": "waiting"}
    with pytest.raises(InputError, match="no live server runs there"):
        load_adapter(room.home, room.forms)
    unload_adapter(room.home, "checks")
    assert room.state.wanted == {"forms": room.forms.id}


def test_a_server_that_does_not_answer_is_not_taken_for_none(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is said to be unloaded would answer on."""
    load_adapter(room.home, room.forms)
    server = room.state.server()
    monkeypatch.setattr("serving.live_state._ANSWER_S", 0.05)
    room.double.slow = 0.2
    for act in (lambda: unload_adapter(room.home, "forms"), lambda: standing(room.home)):
        with pytest.raises(InputError, match="is there and does not answer"):
            act()
    # It ends between two questions.
    monkeypatch.setattr(LiveState, "find_server", lambda _: server)
    room.double.close()
    with pytest.raises(InputError, match="the live server does not answer"):
        unload_adapter(room.home, "forms")
    assert room.state.wanted == {"forms": room.forms.id}


def test_which_server_is_meant(room: Room, tmp_path: Path) -> None:
    assert find_state(room.home, None).port == room.double.port
    LiveState(room.home, 1).want({"forms": room.forms.id})
    assert find_state(room.home, None).port == room.double.port, "the one that runs"
    room.state.closed()
    room.state.want({})
    with pytest.raises(InputError, match="give it with --port"):
        find_state(room.home, None)
    with pytest.raises(InputError, match="none was started from this home"):
        find_state(Home(tmp_path / "empty"), None)


def test_the_token_is_for_the_operator_alone(room: Room) -> None:
    folder = room.home.root / "live"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert TOKEN not in repr(room.state.server().engine)
    (folder / f"{room.double.port}.server.json").write_text("{}")
    with pytest.raises(IntegrityError, match="cannot be read"):
        standing(room.home)


def test_a_server_with_a_key_is_asked_with_it(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    room.double.key = "secret"
    with pytest.raises(InputError, match="VLLM_API_KEY is not the server's"):
        load_adapter(room.home, room.forms)
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    load_adapter(room.home, room.forms)
    assert room.states() == {"forms": "live"}


def test_a_server_starts_with_all_or_not_at_all(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was live before is looked at before an engine starts."""
    monkeypatch.setattr("serving.live.running_engine", None)
    state = LiveState(room.home, 8000)
    state.want({"gone": "0" * 64})
    with pytest.raises(InputError, match="gone: release 000000000000 is gone"):
        serve_live(room.home, [room.forms])
    state.want({"notes": room.release("notes", 1, proven=False).id})
    with pytest.raises(GateRefused, match="notes"):
        serve_live(room.home, [room.forms])
    state.want({name: room.release(name).id for name in ("a", "b", "c")})
    with pytest.raises(InputError, match="4 adapters, there is room for 3"):
        serve_live(room.home, [room.forms])
    assert main(["serve", room.forms.short, room.held_out.short, "--home", str(room.home.root)]) == 2
    monkeypatch.setenv("VLLM_API_KEY", "")
    open_to_all = room.release("open", recipe=with_live(small_recipe(room.folder), host="0.0.0.0"))
    with pytest.raises(InputError, match="VLLM_API_KEY is not set"):
        serve_live(room.home, [open_to_all])
