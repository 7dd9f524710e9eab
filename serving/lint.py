"""The linter: whether the very command line and environment that will run are safe. Before each start.

It judges words, not what `command` meant by them, so that a slip there is found here. What it does not know
is refused: an option is not safe because nobody thought of it. vLLM takes options in other spellings too
(underscores, `--name=value`, a beginning of the name): those are refused with the rest.
Read in vLLM 0.32 entrypoints/launchers/cli_args.py, engine/arg_utils.py, envs.py and its page "Security".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lensmith.errors import InputError, Problem
from lensmith.units import GIB
from lensmith.video_settings import MOST_FRAMES
from serving.api_server import MEDIA_OPTION, PROGRAM
from serving.film_loader import LOADER
from serving.guard import MIDDLEWARE, TOKEN_VARIABLE
from serving.host import is_local

# Reserved by RFC 2606: no host is ever called this, so no media address is allowed.
NO_DOMAIN = "media.invalid"

# vLLM's own limit, Pillow's for a decompression bomb.
_MOST_PIXELS = 178_956_970
# vLLM 0.32 decodes in so many threads (VLLM_MEDIA_LOADING_THREAD_COUNT); Pillow keeps a pixel in four bytes.
_DECODING, _PIXEL_BYTES = 8, 4
# A frame's, twice: apart, and put together with the others.
_FRAME_BYTES = 6
_MOST_IMAGES = 1000
_MOST_VIDEOS = 100
# Of a video, in bytes: what a request holds is in memory several times.
_MOST_BYTES = 2_000_000_000

# A value is right where this gives "", else it says what is wrong.
Check = Callable[[str], str]


def _any(value: str) -> str:
    return ""


def _is(*allowed: str) -> Check:
    return lambda value: "" if value in allowed else f"is {value!r}, not {' or '.join(allowed)}"


def _folder(value: str) -> str:
    """A path of this machine: a name would be fetched from a hub."""
    return "" if value.startswith("/") else f"{value!r} is no folder of this machine"


def _limits(value: str) -> str:
    """Some images and videos, no other media: each kind that is not named is accepted by the hundred."""
    limits = _json(value)
    if not isinstance(limits, dict) or set(limits) != {"image", "video"}:
        return f"{value} does not say how many images and videos are accepted"
    for kind, most in (("image", _MOST_IMAGES), ("video", _MOST_VIDEOS)):
        if type(limits[kind]) is not int or not 0 <= limits[kind] <= most:
            return f"{limits[kind]} {kind}s are accepted in one request, more than {most}"
    return ""


def _size_alone(value: str) -> str:
    """The size of images; of videos it is the checkpoint's, but for a cap of each frame's."""
    settings = _json(value)
    wrong = "sets more than the image size"
    if not isinstance(settings, dict):
        return wrong
    images, videos = settings.get("images_kwargs", {}), settings.get("videos_kwargs", {})
    if set(settings) <= {"size"}:
        return ""
    if not set(settings) <= {"images_kwargs", "videos_kwargs"}:
        return wrong
    right = set(images) <= {"size"} and set(videos) <= {"cap_pixels_per_frame"}
    return "" if right else wrong


def _reading(value: str) -> str:
    """Videos by our loader, under limits; images as vLLM reads them."""
    settings = _json(value)
    video = settings.get("video") if isinstance(settings, dict) and set(settings) == {"video"} else None
    if not isinstance(video, dict) or video.get("video_backend") != LOADER:
        return "changes how media are read"
    if video.get("num_frames") != 0:
        return "num_frames is not 0: frames would be taken as a list of JPEGs, without their times"
    bounds = {"max_frames": MOST_FRAMES, "max_pixels": _MOST_PIXELS, "max_decoded_pixels": _MOST_PIXELS}
    for name, most in (bounds | {"max_bytes": _MOST_BYTES}).items():
        if type(video.get(name)) is not int or not 0 < video[name] <= most:
            return f"{name} is {video.get(name)}, no limit up to {most}"
    return ""


def _sampling(value: str) -> str:
    settings = _json(value)
    limited = isinstance(settings, dict) and type(settings.get("max_new_tokens")) is int
    return "" if limited else "does not limit an answer's length"


def _guided(value: str) -> str:
    """The backend by name: "auto" changes it from one request to the next, and loads others."""
    rules = _json(value)
    known = {"backend", "disable_any_whitespace"}
    right = isinstance(rules, dict) and set(rules) == known and rules["backend"] == "xgrammar"
    return "" if right else "does not name xgrammar alone for guided answers"


def _json(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return None


# Options with a value that may stand there, and which value.
_VALUES: dict[str, Check] = {
    "--model": _folder,
    "--served-model-name": _any,
    "--host": _any,
    "--port": _any,
    "--dtype": _is("float32", "bfloat16"),
    "--max-model-len": _any,
    "--seed": _any,
    # The checkpoint's would change what was evaluated, and lift the limit of an answer's length.
    "--generation-config": _is("vllm"),
    "--override-generation-config": _sampling,
    "--chat-template-content-format": _is("openai"),
    "--limit-mm-per-prompt": _limits,
    "--mm-processor-kwargs": _size_alone,
    MEDIA_OPTION: _reading,
    "--allowed-media-domains": _is(NO_DOMAIN),
    "--mm-processor-cache-gb": _any,
    "--structured-outputs-config": _guided,
    "--hf-config-path": _folder,
    "--chat-template": _folder,
    "--kv-cache-memory-bytes": _any,
    "--distributed-executor-backend": _is("uni"),
    "--gpu-memory-utilization": _any,
    "--tensor-parallel-size": _any,
    "--data-parallel-size": _any,
    "--mm-encoder-tp-mode": _is("weights", "data"),
    "--kv-cache-dtype": _is("auto", "fp8"),
    "--quantization": _is("fp8"),
    "--tool-call-parser": _any,
    "--reasoning-parser": _any,
    "--max-lora-rank": _any,
    "--max-loras": _any,
    "--max-cpu-loras": _any,
    "--lora-modules": _any,
    "--middleware": _is(MIDDLEWARE),
}
_FLAGS = {
    "--enable-prefix-caching",
    "--no-enable-prefix-caching",
    "--enable-expert-parallel",
    "--no-enable-expert-parallel",
    "--enable-auto-tool-choice",
    "--enable-lora",
    "--enable-tower-connector-lora",
    "--enforce-eager",
    "--skip-mm-profiling",
}
# Whose defaults are open.
_NEEDED = (
    "--host",
    "--generation-config",
    "--override-generation-config",
    "--limit-mm-per-prompt",
    "--allowed-media-domains",
    "--middleware",
)
# Why some of the others are not there; all others are refused as not judged.
_UNSAFE = {
    "--trust-remote-code": "runs code that a checkpoint brings along",
    "--allowed-local-media-path": "lets requests read files of the server",
    "--enable-prompt-embeds": "takes tensors from requests, which can corrupt the engine's memory",
    "--enable-mm-embeds": "takes tensors from requests, which can corrupt the engine's memory",
    "--trust-request-chat-template": "runs a template that a request brings along",
    "--trust-request-mm-kwargs": "lets a request change how much memory its images take",
    "--enable-log-requests": "writes what people ask into the log",
    "--enable-log-outputs": "writes what people are answered into the log",
    "--api-key": "shows the key to everybody who lists processes: set VLLM_API_KEY",
    "--allowed-origins": "lets web pages of others ask with their visitors' browsers",
    "--tool-server": "runs what a model writes",
    "--tool-parser-plugin": "runs code from a file",
    "--reasoning-parser-plugin": "runs code from a file",
    "--logits-processors": "runs code by name",
    "--kv-transfer-config": "opens sockets without a key to other machines",
    "--config": "brings in options from a file",
}

_ENVIRONMENT: dict[str, Check] = {
    "VLLM_MEDIA_URL_ALLOW_REDIRECTS": _is("0"),
    "VLLM_NO_USAGE_STATS": _is("1"),
    "HF_HUB_OFFLINE": _is("1"),
    "TRANSFORMERS_OFFLINE": _is("1"),
    "DO_NOT_TRACK": _is("1"),
    # Judged with the machine's memory.
    "VLLM_MAX_IMAGE_PIXELS": _any,
}
_MAY_STAND = {"VLLM_API_KEY", "VLLM_CACHE_ROOT", "VLLM_LOGGING_LEVEL", "VLLM_ENABLE_V1_MULTIPROCESSING"}
_UNSAFE_VARIABLES = {
    "VLLM_SERVER_DEV_MODE": "opens endpoints that stop, reset and command the engine",
    "VLLM_ALLOW_INSECURE_SERIALIZATION": "runs code out of pickles",
    "VLLM_DEBUG_LOG_API_SERVER_RESPONSE": "writes what people are answered into the log",
    "VLLM_PLUGINS": "runs code by name",
    "VLLM_MEDIA_CONNECTOR": "changes who fetches media",
}
_ADAPTERS = "VLLM_ALLOW_RUNTIME_LORA_UPDATING"


def refuse_unsafe(argv: Sequence[str], environment: Mapping[str, str], memory: int) -> None:
    """Raise InputError with every unsafe setting; memory: of this machine, in bytes."""
    if problems := lint(argv, environment, memory):
        raise InputError("the engine was not started: its settings are not safe", problems)


def lint(argv: Sequence[str], environment: Mapping[str, str], memory: int) -> list[Problem]:
    """Everything that is unsafe in the command and environment that start vLLM."""
    if list(argv[1:3]) != ["-P", str(PROGRAM)]:
        return [Problem(f"is not `python -P {PROGRAM}`", " ".join(argv[:3]))]
    options, problems = _read(argv[3:])
    problems += [
        Problem("is not given, and open by default", name) for name in _NEEDED if name not in options
    ]
    for name, value in options.items():
        if name in _VALUES and (wrong := _VALUES[name](value)):
            problems.append(Problem(wrong, name))
    problems += _variable_problems(environment)
    problems += _address_problems(options.get("--host", ""), environment)
    problems += _adapter_problems(environment)
    problems += _video_problems(options, memory)
    return problems + _pixel_problems(environment.get("VLLM_MAX_IMAGE_PIXELS", ""), memory)


def _read(words: Sequence[str]) -> tuple[dict[str, str], list[Problem]]:
    """Options by name, a flag's value "", and what of the words cannot stand there."""
    options: dict[str, str] = {}
    problems: list[Problem] = []
    at = 0
    while at < len(words):
        name = words[at]
        takes = name in _VALUES and at + 1 < len(words)
        if not takes and name not in _FLAGS:
            problems.append(_unknown(name))
        elif name in options:
            problems.append(Problem("is given twice: the second would hold", name))
        else:
            options[name] = words[at + 1] if takes else ""
        # Of an unknown option the value is told too, where it has one.
        at += 2 if takes else 1
    return options, problems


def _unknown(word: str) -> Problem:
    plain = word.partition("=")[0].replace("_", "-")
    if plain in _UNSAFE:
        return Problem(_UNSAFE[plain], word)
    return Problem("was never judged safe", word, "judge it in serving/lint.py")


def _variable_problems(environment: Mapping[str, str]) -> list[Problem]:
    problems: list[Problem] = []
    for name, check in _ENVIRONMENT.items():
        if name not in environment:
            problems.append(Problem("is not set, and open by default", name))
        elif wrong := check(environment[name]):
            problems.append(Problem(wrong, name))
    known = {*_ENVIRONMENT, *_MAY_STAND, _ADAPTERS}
    for name in environment:
        if name.startswith("VLLM_") and name not in known:
            problems.append(Problem(_UNSAFE_VARIABLES.get(name, "was never judged safe"), name))
    return problems


def _address_problems(host: str, environment: Mapping[str, str]) -> list[Problem]:
    if not host or is_local(host) or environment.get("VLLM_API_KEY"):
        return []
    return [Problem(f"{host} is open to other machines, and VLLM_API_KEY is not set", "--host")]


def _adapter_problems(environment: Mapping[str, str]) -> list[Problem]:
    """Who may load adapters while it runs: vLLM asks nobody, the guard asks for this start's token."""
    if _ADAPTERS not in environment or environment.get(TOKEN_VARIABLE):
        return []
    return [Problem("adapters can be loaded, and there is no token to ask for", _ADAPTERS)]


def _video_problems(options: Mapping[str, str], memory: int) -> list[Problem]:
    """Videos that vLLM's own loaders would read, without a limit of their length or of a frame's pixels; and
    frames that together would take more than half of the machine's memory."""
    limits, media = _json(options.get("--limit-mm-per-prompt", "")), _json(options.get(MEDIA_OPTION, ""))
    if not isinstance(limits, dict) or not limits.get("video"):
        return []
    if not isinstance(media, dict) or not isinstance(video := media.get("video"), dict):
        what = f"{limits['video']} videos are accepted: one may hold any number of frames"
        return [Problem(what, "--limit-mm-per-prompt", f"give {MEDIA_OPTION}")]
    frames, pixels = video.get("max_frames"), video.get("max_pixels")
    if type(frames) is not int or type(pixels) is not int:
        # Told already.
        return []
    needed = frames * pixels * _FRAME_BYTES * _DECODING
    if needed > memory // 2:
        what = f"{_DECODING} such videos take {needed / GIB:.1f} GiB decoded, of {memory / GIB:.1f} in all"
        return [Problem(what, MEDIA_OPTION, "lower data.video.max_frames or max_pixels")]
    return []


def _pixel_problems(pixels: str, memory: int) -> list[Problem]:
    """Images that together would take more than half of the machine's memory once decoded."""
    where, mend = "VLLM_MAX_IMAGE_PIXELS", "lower data.max_image_pixels"
    if not pixels.isdecimal() or int(pixels) == 0:
        # Not set is told already; 0 turns the limit off.
        return [Problem(f"{pixels} is no limit", where, mend)] if pixels else []
    if int(pixels) > _MOST_PIXELS:
        return [Problem(f"{pixels} pixels are more than vLLM's own limit, {_MOST_PIXELS}", where, mend)]
    needed = int(pixels) * _PIXEL_BYTES * _DECODING
    if needed > memory // 2:
        what = f"{_DECODING} such images take {needed / GIB:.1f} GiB decoded, of {memory / GIB:.1f} in all"
        return [Problem(what, where, mend)]
    return []
