"""`profile.yaml`: its schema, how it is written for people and read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, ValidationError

from lensmith.errors import InputError, Problem
from lensmith.families.family import Tower
from lensmith.files import write_atomically
from lensmith.guide import Guide
from lensmith.section import Section
from lensmith.yaml_file import read_yaml
from serving.build import EngineBuild

PROFILE_FILE = "profile.yaml"
Mode = Literal["merged", "adapter", "base"]


class Images(Section):
    """What is accepted of images. Remote and local media are never fetched: images come in the request."""

    per_prompt: int = Field(ge=1, description="images accepted in one request")
    min_pixels: int | None = Field(
        default=None,
        ge=1,
        description="smaller images are enlarged to this area, as in training",
    )
    max_pixels: int | None = Field(
        default=None, ge=1, description="larger images are reduced to this area, as in training"
    )
    max_decoded_pixels: int = Field(ge=1, description="an image with more pixels than this is refused")


class Videos(Section):
    """What is accepted of videos, and which frames are taken of one: as of those that were taught."""

    per_prompt: int = Field(ge=1, description="videos accepted in one request")
    fps: float = Field(gt=0, description="frames that are taken of a second")
    max_frames: int = Field(ge=2, description="most frames of one video")
    max_pixels: int = Field(ge=1, description="larger frames are reduced to this area")
    max_bytes: int = Field(ge=1, description="encoded size accepted, in bytes")


class Room(Section):
    """Room for other adapters beside this one."""

    max_adapters: int = Field(ge=1, description="adapters that can be loaded at a time")
    at_once: int = Field(ge=1, description="adapters whose requests are computed together")


class AdapterOptions(Section):
    """The adapter that is applied to the base."""

    max_rank: int = Field(description="the rank vLLM reserves room for: the adapter's, rounded up")
    towers: list[Tower] = Field(description="towers the adapter changes")
    tower_connector: bool = Field(description="vLLM's option to apply the vision and connector part")
    room: Room | None = Field(
        default=None, description="adapters are loaded and unloaded while it runs: lensmith load, unload"
    )


class Caches(Section):
    """Caches in production. Traces for proofs are made with all of them off."""

    prefix: bool = Field(description="keep the attention state of prompts that begin alike")
    processor_gib: float = Field(ge=0, description="memory for processed images, in GiB")


class Cpu(Section):
    """A CPU engine's resources."""

    threads: int = Field(ge=1, description="cores that compute")
    kv_cache_gib: float = Field(gt=0, description="memory of the KV cache, in GiB")


class Cuda(Section):
    """A GPU engine's resources. What has a default was absent in the first profiles."""

    gpu: str = Field(default="", description="the GPUs it was derived for, as their driver calls them")
    memory_utilization: float = Field(gt=0, le=1, description="share of GPU memory taken")
    tensor_parallel: int = Field(ge=1, description="GPUs that share one copy of the model")
    data_parallel: int = Field(default=1, ge=1, description="copies of the model behind the address")
    encoder_parallel: Literal["weights", "data"] = Field(
        default="weights", description="the vision tower: cut over the GPUs, or whole on each"
    )
    expert_parallel: bool = Field(default=False, description="whole experts on each GPU")
    quantization: Literal["none", "fp8"] = Field(
        default="none", description="what the engine rounds weights and activations to"
    )
    kv_cache_dtype: Literal["auto", "fp8"] = Field(default="auto", description="auto: as dtype")

    @property
    def rounded(self) -> list[str]:
        """What is rounded further than dtype says, in words."""
        words = {"weights and activations": self.quantization, "the KV cache": self.kv_cache_dtype}
        return [what for what, kind in words.items() if kind == "fp8"]


class Parsers(Section):
    """vLLM's parsers, by its names for them: they cut an answer into parts and change no token of it."""

    tools: str | None = Field(default=None, description="of tool calls, where a request offers tools")
    thinking: str | None = Field(
        default=None, description="of thoughts; off for proofs, which read answers whole"
    )


class Profile(Section):
    """`profile.yaml`. Weights are found by id in the home when the engine starts, not by path."""

    version: Literal[1] = Field(default=1, description="of this file's form")
    family: str = Field(description="model family")
    mode: Mode = Field(description="merged weights, an adapter beside its base, or the base as it is")
    subject: str = Field(description="id of the artifact that is served")
    base: str = Field(description="id of the base it was made from")
    served_name: str = Field(description="the model's name in requests")
    host: str = Field(description="address to listen on")
    port: int = Field(description="port to listen on; `lensmith serve --port` overrides it")
    engine: EngineBuild = Field(description="the engine this was derived for")
    dtype: Literal["float32", "bfloat16"] = Field(description="of weights and activations")
    max_model_len: int = Field(ge=1, description="prompt and answer together, in tokens")
    max_new_tokens: int = Field(ge=1, description="longest answer, in tokens")
    seed: int = Field(description="of sampling, where a request asks for it")
    decoding: dict[str, float] = Field(
        description="used where a request says nothing: greedy, as evaluated (generation_config.json is not)"
    )
    images: Images = Field(description="what is accepted: images inside the request; no address is fetched")
    videos: Videos | None = Field(
        default=None, description="videos inside the request, sampled as data.video says; absent: none"
    )
    parsers: Parsers | None = Field(default=None, description="what takes answers apart")
    guided: Guide | None = Field(
        default=None, description="answers kept to a schema, where a request asks with it as response_format"
    )
    adapter: AdapterOptions | None = Field(default=None, description="mode adapter only")
    caches: Caches = Field(description="in production; off for proofs")
    cpu: Cpu | None = Field(default=None, description="a CPU engine's resources")
    cuda: Cuda | None = Field(default=None, description="a GPU engine's resources")


def write_profile(folder: Path, profile: Profile) -> None:
    """Write `profile.yaml`, each key under a comment that says what it means."""
    head = (
        f"# How vLLM serves {profile.subject[:12]} ({profile.mode}). `lensmith serve` starts it.\n"
        "# Part of an artifact: an edit is found and refused. Change the recipe and run it again instead.\n"
    )
    text = head + "\n".join(_commented(profile, "")) + "\n"
    write_atomically(folder / PROFILE_FILE, text.encode())


def _commented(section: BaseModel, indent: str) -> list[str]:
    lines: list[str] = []
    for name, value in section:
        if value is None:
            continue
        lines.append(f"{indent}# {type(section).model_fields[name].description}")
        if isinstance(value, BaseModel):
            lines.append(f"{indent}{name}:")
            lines += _commented(value, indent + "  ")
        else:
            # JSON is YAML, and leaves no doubt whether an id of digits is text.
            lines.append(f"{indent}{name}: {json.dumps(value)}")
    return lines


def parse_profile(path: Path) -> Profile:
    """The profile in a file, without any check of where it came from."""
    file = read_yaml(path)
    try:
        return Profile.model_validate(file.content)
    except ValidationError as error:
        problems = [
            Problem(each["msg"], f"{path} {'.'.join(map(str, each['loc']))}") for each in error.errors()
        ]
        raise InputError(f"{path} is not a profile of this version", problems) from error
