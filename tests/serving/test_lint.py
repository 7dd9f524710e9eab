"""The linter on the very words that start vLLM: what profiles give is safe, each planted slip is found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lensmith.errors import InputError
from lensmith.guide import Guide
from lensmith.home import Home
from lensmith.units import GIB
from serving import engine
from serving.api_server import MEDIA_OPTION
from serving.command import engine_argv, engine_environment
from serving.guard import TOKEN_VARIABLE
from serving.lint import _ENVIRONMENT, _VALUES, _any, lint
from serving.profile import Places, derive_profile
from serving.profile_file import AdapterOptions, Parsers, Profile, Room, Videos, parse_profile
from tests.serving.exam import CPU
from tests.serving.shipped import profiles
from tests.serving.small import small_base, small_recipe

GOLDEN = Path(__file__).parent / "golden"
PLACES = Places(Path("/base"), Path("/run"))
MEMORY = 16 * GIB
Words = list[str]
Environment = dict[str, str]


def merged() -> Profile:
    return parse_profile(GOLDEN / "merged_cpu.yaml")


def judged(
    profile: Profile,
    change: Callable[[Words, Environment], None] | None = None,
    memory: int = MEMORY,
    **shell: str,
) -> str:
    """What the linter says of a profile's command and environment, after `change` made a slip in them."""
    argv = engine_argv(profile, PLACES, 8123, proof=False)
    environment = engine_environment(profile, shell, proof=False)
    if change is not None:
        change(argv, environment)
    return "\n".join(map(str, lint(argv, environment, memory)))


def test_what_profiles_give_is_safe() -> None:
    for name, profile in profiles().items():
        assert judged(profile, memory=64 * GIB) == "", name
    parsers = Parsers(tools="hermes", thinking="qwen3")
    adapter = AdapterOptions(max_rank=16, towers=["vision"], tower_connector=True)
    changed = merged().model_copy(update={"parsers": parsers, "adapter": adapter})
    assert judged(changed) == ""
    guided = merged().model_copy(update={"guided": Guide(answer_schema="{}")})
    assert judged(guided) == ""
    auto = '{"backend": "auto", "disable_any_whitespace": false}'
    assert "xgrammar alone" in judged(
        guided, lambda words, _: words.__setitem__(words.index("--structured-outputs-config") + 1, auto)
    )
    room = adapter.model_copy(update={"room": Room(max_adapters=4, at_once=2)})
    live = changed.model_copy(update={"adapter": room})
    argv = engine_argv(live, PLACES, 8123, proof=False, live=True)
    assert lint(argv, engine_environment(live, {}, proof=False, token="drawn"), MEMORY) == []
    for proof in (True, False):
        argv = engine_argv(merged(), PLACES, 8123, proof=proof)
        assert lint(argv, engine_environment(merged(), {"PATH": "/bin"}, proof=proof), MEMORY) == []


def with_videos(**changes: Any) -> Profile:
    """Of many frames: each of eight at a time takes 256 MiB, twice."""
    videos = Videos(per_prompt=1, fps=1, max_frames=256, max_pixels=350_000, max_bytes=10_000_000)
    return merged().model_copy(update={"videos": videos.model_copy(update=changes)})


def test_videos_are_taken_under_limits() -> None:
    assert judged(with_videos()) == ""
    assert judged(with_videos(), memory=8 * GIB) != ""
    argv = engine_argv(with_videos(), PLACES, 8123, proof=False)
    told = json.loads(argv[argv.index("--media-io-kwargs") + 1])["video"]
    slips = {
        "a loader of vLLM's": (told | {"video_backend": "opencv"}, "changes how media are read"),
        "a list of JPEGs": (told | {"num_frames": 8}, "without their times"),
        "no limit of frames": (told | {"max_frames": None}, "max_frames is None"),
        "more than are prepared": (told | {"max_frames": 1000}, "max_frames is 1000"),
        "frames of any size": (told | {"max_pixels": 1 << 40}, "max_pixels"),
        "any size in the file": (told | {"max_decoded_pixels": 0}, "max_decoded_pixels is 0"),
        "any length": (told | {"max_bytes": 1 << 40}, "max_bytes"),
    }
    for name, (video, what) in slips.items():
        assert what in judged(with_videos(), value_of(MEDIA_OPTION, json.dumps({"video": video}))), name
    for value in ("[]", json.dumps({"video": told, "image": {}}), "{"):
        assert "changes how media are read" in judged(with_videos(), value_of(MEDIA_OPTION, value))
    assert "1 videos are accepted: one may hold any number" in judged(with_videos(), without(MEDIA_OPTION))


@pytest.mark.parametrize(
    "settings",
    [
        {"images_kwargs": {"do_resize": False}},
        {"videos_kwargs": {"size": {"longest_edge": 5}}},
        {"size": {}, "videos_kwargs": {}},
        {"fps": 4},
    ],
)
def test_the_size_of_videos_is_the_checkpoint_s(settings: dict[str, Any]) -> None:
    change = value_of("--mm-processor-kwargs", json.dumps(settings))
    assert "sets more than the image size" in judged(with_videos(), change)


def value_of(option: str, value: str) -> Callable[[Words, Environment], None]:
    def change(argv: Words, environment: Environment) -> None:
        argv[argv.index(option) + 1] = value

    return change


def without(option: str) -> Callable[[Words, Environment], None]:
    def change(argv: Words, environment: Environment) -> None:
        at = argv.index(option)
        del argv[at : at + 2]

    return change


def more(*words: str) -> Callable[[Words, Environment], None]:
    return lambda argv, environment: argv.extend(words)


def variable(name: str, value: str | None) -> Callable[[Words, Environment], None]:
    def change(argv: Words, environment: Environment) -> None:
        environment.pop(name, None)
        if value is not None:
            environment[name] = value

    return change


SLIPS = {
    "a domain is opened": (value_of("--allowed-media-domains", "example.org"), "not media.invalid"),
    "all domains are open": (
        without("--allowed-media-domains"),
        "--allowed-media-domains: is not given, and open by default",
    ),
    "a second domain": (more("--allowed-media-domains", "example.org"), "given twice"),
    "remote code": (more("--trust-remote-code"), "runs code that a checkpoint brings along"),
    "in vLLM's other spelling": (more("--trust_remote_code"), "runs code that a checkpoint brings along"),
    "as a beginning of the name": (more("--trust-remote"), "was never judged safe"),
    "with its value": (more("--allowed-local-media-path=/"), "lets requests read files of the server"),
    "files of the server": (more("--allowed-local-media-path", "/"), "lets requests read files"),
    "tensors from requests": (more("--enable-prompt-embeds"), "corrupt the engine's memory"),
    "no limit of images": (
        without("--limit-mm-per-prompt"),
        "--limit-mm-per-prompt: is not given, and open by default",
    ),
    "too many images": (value_of("--limit-mm-per-prompt", '{"image": 5000, "video": 0}'), "5000 images"),
    "videos": (value_of("--limit-mm-per-prompt", '{"image": 1, "video": 1}'), "1 videos are accepted"),
    "videos are not named": (value_of("--limit-mm-per-prompt", '{"image": 1}'), "does not say how many"),
    "videos by a part": (more("--limit-mm-per-prompt.video", "9"), "was never judged safe"),
    "the checkpoint's sampling": (value_of("--generation-config", "auto"), "is 'auto', not vllm"),
    "sampling by default": (
        without("--generation-config"),
        "--generation-config: is not given, and open by default",
    ),
    "answers without end": (value_of("--override-generation-config", "{}"), "does not limit an answer"),
    "requests are logged": (more("--enable-log-requests"), "writes what people ask into the log"),
    "a key for all to see": (more("--api-key", "k"), "set VLLM_API_KEY"),
    "a template of a request": (more("--trust-request-chat-template"), "runs a template"),
    "a model of a hub": (value_of("--model", "someone/model"), "is no folder of this machine"),
    "something new": (more("--brand-new-option"), "was never judged safe"),
    "another program": (value_of("-P", "/elsewhere/api_server.py"), "is not `python -P "),
    "redirects": (
        variable("VLLM_MEDIA_URL_ALLOW_REDIRECTS", "1"),
        "VLLM_MEDIA_URL_ALLOW_REDIRECTS: is '1', not 0",
    ),
    "redirects by default": (variable("VLLM_MEDIA_URL_ALLOW_REDIRECTS", None), "open by default"),
    "downloads": (variable("HF_HUB_OFFLINE", "0"), "HF_HUB_OFFLINE"),
    "reports": (variable("VLLM_NO_USAGE_STATS", None), "VLLM_NO_USAGE_STATS"),
    "development": (variable("VLLM_SERVER_DEV_MODE", "1"), "opens endpoints that stop"),
    "pickles": (variable("VLLM_ALLOW_INSECURE_SERIALIZATION", "1"), "runs code out of pickles"),
    "answers are logged": (variable("VLLM_DEBUG_LOG_API_SERVER_RESPONSE", "1"), "writes what people are"),
    "a new variable": (variable("VLLM_BRAND_NEW", "1"), "VLLM_BRAND_NEW: was never judged safe"),
    "adapters by nobody": (variable("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "1"), "no token to ask for"),
    "no guard": (without("--middleware"), "--middleware: is not given, and open by default"),
    "no limit of pixels": (variable("VLLM_MAX_IMAGE_PIXELS", "0"), "0 is no limit"),
    "pixels by default": (
        variable("VLLM_MAX_IMAGE_PIXELS", None),
        "VLLM_MAX_IMAGE_PIXELS: is not set, and open by default",
    ),
    "too many pixels": (variable("VLLM_MAX_IMAGE_PIXELS", "500000000"), "more than vLLM's own limit"),
    "an address without a key": (value_of("--host", "0.0.0.0"), "0.0.0.0 is open to other machines"),
    "no address": (without("--host"), "--host: is not given, and open by default"),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_each_slip_is_found(slip: str) -> None:
    change, words = SLIPS[slip]
    assert words in judged(merged(), change)


# For every option whose value is judged at least one that it must not have.
WRONG: dict[str, list[str]] = {
    "--model": ["someone/model"],
    "--dtype": ["auto", "float16"],
    "--generation-config": ["auto", "/folder"],
    "--override-generation-config": ["{}", '{"max_new_tokens": "9"}', "[9]"],
    "--chat-template-content-format": ["auto", "string"],
    "--limit-mm-per-prompt": [
        '{"image": true, "video": 0}',
        '{"image": 1.5, "video": 0}',
        '{"image": -1, "video": 0}',
        '{"image": {"count": 1, "width": 1}, "video": 0}',
        '{"image": 1, "video": 0, "audio": 1}',
        "image=1",
    ],
    "--mm-processor-kwargs": ['{"do_resize": false}', '{"size": {}, "max_pixels": 9}', "size"],
    "--allowed-media-domains": ["example.org", ""],
    "--structured-outputs-config": ['{"backend": "auto", "disable_any_whitespace": false}', "xgrammar"],
    "--hf-config-path": ["someone/model"],
    "--chat-template": ["template.jinja", "{{ messages }}"],
    "--distributed-executor-backend": ["ray", "somebody.Executor"],
    "--mm-encoder-tp-mode": ["auto"],
    "--kv-cache-dtype": ["fp8_e5m2"],
    "--quantization": ["awq", "bitsandbytes"],
    "--middleware": ["somebody.Else"],
    "--media-io-kwargs": ["{}", '{"video": {"fps": 30}}', '{"image": {"image_mode": null}}'],
}
SET = ("VLLM_MEDIA_URL_ALLOW_REDIRECTS", "VLLM_NO_USAGE_STATS", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
SET += ("DO_NOT_TRACK", "VLLM_MAX_IMAGE_PIXELS")


def given(option: str, value: str) -> Callable[[Words, Environment], None]:
    """The option with this value, in the place of its own."""

    def change(argv: Words, environment: Environment) -> None:
        if option in argv:
            argv[argv.index(option) + 1] = value
        else:
            argv += [option, value]

    return change


@pytest.mark.parametrize(("option", "value"), [(name, each) for name, some in WRONG.items() for each in some])
def test_a_value_that_it_must_not_have(option: str, value: str) -> None:
    (told,) = judged(merged(), given(option, value)).splitlines()
    assert told.startswith(f"{option}: ")


@pytest.mark.parametrize("name", SET)
@pytest.mark.parametrize("value", [None, "yes"])
def test_a_variable_that_is_not_set_so(name: str, value: str | None) -> None:
    (told,) = judged(merged(), variable(name, value)).splitlines()
    assert told.startswith(f"{name}: ")


def test_everything_that_is_judged_is_tried_here() -> None:
    assert WRONG.keys() == {name for name, check in _VALUES.items() if check is not _any}
    assert set(SET) == _ENVIRONMENT.keys()


def test_a_key_opens_an_address_and_the_token_guards_adapters() -> None:
    open_host = merged().model_copy(update={"host": "192.168.0.7"})
    assert "VLLM_API_KEY is not set" in judged(open_host)
    assert judged(open_host, VLLM_API_KEY="k") == ""

    def live(argv: Words, environment: Environment) -> None:
        environment.update({"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", TOKEN_VARIABLE: "t"})

    def unguarded(argv: Words, environment: Environment) -> None:
        live(argv, environment)
        environment[TOKEN_VARIABLE] = ""

    assert judged(merged(), live) == ""
    assert "no token to ask for" in judged(merged(), unguarded)


def test_pixels_are_held_against_the_machine_s_memory() -> None:
    assert "take 3.0 GiB decoded, of 4.0 in all" in judged(merged(), memory=4 * GIB)
    assert judged(merged(), memory=8 * GIB) == ""


def test_everything_is_told_at_once() -> None:
    def change(argv: Words, environment: Environment) -> None:
        argv += ["--trust-remote-code", "--enable-log-requests"]
        environment["VLLM_SERVER_DEV_MODE"] = "1"

    assert len(judged(merged(), change).splitlines()) == 3


def test_no_engine_starts_with_a_slip(tmp_path: Path, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is judged is what would have run: the slip is planted where the command line is made."""
    recipe = small_recipe(tmp_path)
    base = small_base(home, recipe)
    profile = derive_profile(recipe, home, base, base, CPU)

    def slipped(*given: object, **named: object) -> Words:
        return [*engine_argv(*given, **named), "--trust-remote-code"]

    def started(*given: object, **named: object) -> None:
        raise AssertionError("it was started")

    monkeypatch.setattr(engine, "engine_argv", slipped)
    monkeypatch.setattr(engine, "run_child", started)
    with pytest.raises(InputError, match="not safe") as caught, engine.running_engine(profile, home):
        pass
    assert "--trust-remote-code" in str(caught.value)
    assert not (home.root / "logs").exists()
