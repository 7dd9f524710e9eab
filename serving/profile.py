"""Deriving a profile from what is served, the recipe and the machine; reading it back by id."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from lensmith import families
from lensmith.artifact import Artifact, verify
from lensmith.base import checkpoint_path
from lensmith.errors import InputError, IntegrityError, Problem
from lensmith.families.family import TOWERS, Family
from lensmith.families.layout import AS_IN_CLASS
from lensmith.files import write_atomically
from lensmith.guide import recipe_guide
from lensmith.home import Home
from lensmith.lora_ranks import LORA_RANKS, rank_slot
from lensmith.method_limits import engine_problems
from lensmith.provenance import stage_key
from lensmith.recipe import Recipe
from lensmith.serve_settings import Serve
from lensmith.tokens import ImageGrid, PixelBudget, read_grid
from lensmith.units import GIB
from serving.adapter import Adapter, read_adapter
from serving.build import EngineBuild, installed_engine
from serving.engine_adapter import engine_adapter
from serving.engine_files import (
    ADAPTER_FOLDER,
    ENGINE_FOLDER,
    NO_FILES,
    EngineFiles,
    engine_config,
    engine_files,
    find_engine_files,
)
from serving.gpu_settings import cuda_settings, gpu_problems
from serving.hardware import Hardware
from serving.profile_file import (
    PROFILE_FILE,
    AdapterOptions,
    Caches,
    Cpu,
    Images,
    Mode,
    Parsers,
    Profile,
    Room,
    Videos,
    parse_profile,
    write_profile,
)
from serving.request_room import room_problems

# How each kind of artifact is served.
MODES: dict[str, Mode] = {"model": "merged", "run": "adapter", "base": "base"}

# vLLM's own default for the cache of processed images, in GiB; a CPU engine shares memory with the model.
_PROCESSOR_CACHE_GIB = {"cuda": 4.0, "cpu": 1.0}
_MEND = "merge it: serve.mode: merged"


def derive_profile(
    recipe: Recipe, home: Home, subject: Artifact, base: Artifact, hardware: Hardware
) -> Artifact:
    """The profile that serves `subject` (a model, a base or a run with an adapter) on this machine.

    Raises InputError with every reason why vLLM could not serve it whole: another architecture, an adapter
    applied only in part, more tokens than positions, images that fill the context, too little memory, too few
    GPUs, no vLLM.
    """
    profile = make_profile(recipe, subject, base, hardware, installed_engine())
    content = profile.model_dump(mode="json")
    files = engine_files(checkpoint_path(base if subject.kind == "run" else subject), recipe.model_family)
    inputs = {"subject": subject, "base": base}
    # By what it says, not by the machine: more memory than is needed makes no other profile.
    asked = content | {"engine_files": files} if files else content
    key = stage_key("profile", "serving.profile", (), asked, {role: a.id for role, a in inputs.items()})
    if found := home.find("profile", key):
        return found
    with home.create("profile", key, inputs) as draft:
        write_profile(draft.path, profile)
        for name, text in files.items():
            (draft.path / ENGINE_FOLDER).mkdir(exist_ok=True)
            write_atomically(draft.path / ENGINE_FOLDER / name, text.encode())
        if profile.adapter is not None and recipe.model_family.vllm_names is not AS_IN_CLASS:
            folder = draft.path / ENGINE_FOLDER / ADAPTER_FOLDER
            folder.mkdir(parents=True)
            for name, data in engine_adapter(subject.path, recipe.model_family.vllm_names).items():
                write_atomically(folder / name, data)
        draft.body.update(content)
    return draft.artifact


def check_engine(recipe: Recipe) -> None:
    """What the engine of this environment says of what the recipe asks to serve, before it is trained.

    Raises InputError where it applies no adapter of the family, and for what is not known of its version.
    Where there is no engine, it is served elsewhere.
    """
    family = recipe.model_family
    try:
        build = installed_engine()
    except InputError:
        return
    problems = engine_problems(recipe.serve, family, build.version)
    if recipe.serve.mode == "adapter" and (why := family.vllm_no_adapters.get(build.device)):
        problems.append(Problem(why, "serve.mode = adapter", _MEND))
    if problems:
        raise InputError(
            f"what the recipe asks for of {family.title} could not be served here as asked", problems
        )


def make_profile(
    recipe: Recipe, subject: Artifact, base: Artifact, hardware: Hardware, build: EngineBuild
) -> Profile:
    """The profile's content; see `derive_profile`."""
    serve, family = recipe.serve, recipe.model_family
    if subject.kind not in MODES:
        raise InputError(f"{subject.short} cannot be served: only {', '.join(MODES)} can")
    mode = MODES[subject.kind]
    weights = checkpoint_path(base if mode == "adapter" else subject)
    grid = read_grid(weights, family, recipe.pixel_budget)
    budget = grid.budget if isinstance(grid, ImageGrid) else None
    adapter = read_adapter(subject.path, family) if mode == "adapter" else None
    problems = _architecture_problems(weights, family)
    problems += _hardware_problems(recipe, weights, hardware, build)
    problems += room_problems(recipe, weights, grid)
    problems += engine_problems(serve, family, build.version)
    if adapter is not None:
        problems += _partial_problems(adapter, family, serve, build)
    if problems:
        raise InputError(f"{subject.short} cannot be served as the recipe says", problems)
    return settled_profile(
        recipe, Subject(mode, subject.id, base.id), budget, hardware, build, adapter=adapter
    )


@dataclass(frozen=True)
class Subject:
    """What is served and how, by id."""

    mode: Mode
    id: str
    base: str


def settled_profile(
    recipe: Recipe,
    subject: Subject,
    budget: PixelBudget | None,
    hardware: Hardware,
    build: EngineBuild,
    *,
    adapter: Adapter | None = None,
) -> Profile:
    """The profile that the recipe, the family's facts and the machine make, nothing left open.

    budget: bounds of an image, None for a family without. Whether it can work is not looked at.
    """
    serve, family = recipe.serve, recipe.model_family
    cuda = build.device == "cuda"
    return Profile(
        family=family.name,
        mode=subject.mode,
        subject=subject.id,
        base=subject.base,
        served_name=recipe.release.name,
        host=serve.host,
        port=serve.port,
        engine=build,
        dtype=serve.dtype,
        max_model_len=serve.max_model_len,
        max_new_tokens=serve.max_new_tokens,
        seed=0,
        decoding={"temperature": 0.0},
        images=Images(
            per_prompt=serve.max_images,
            min_pixels=budget and budget.min_pixels,
            max_pixels=budget and budget.max_pixels,
            max_decoded_pixels=recipe.data.max_image_pixels,
        ),
        videos=_videos(recipe),
        # A base is served to be compared with, and compared are free answers.
        guided=None if subject.mode == "base" else recipe_guide(recipe),
        adapter=None if adapter is None else _adapter_options(adapter, serve),
        parsers=_parsers(serve, family),
        caches=_caches(family, build),
        cpu=None if cuda else Cpu(threads=hardware.cores, kv_cache_gib=serve.kv_cache_gib),
        cuda=cuda_settings(serve, family, hardware.gpus) if cuda else None,
    )


def _videos(recipe: Recipe) -> Videos | None:
    asked = recipe.data.video
    if asked is None:
        return None
    return Videos(per_prompt=recipe.serve.max_videos, **asked.model_dump())


def _parsers(serve: Serve, family: Family) -> Parsers | None:
    offers = family.vllm_offers
    tools = offers.tool_parser if serve.tools else None
    thinking = offers.reasoning_parser if serve.thinking else None
    return Parsers(tools=tools, thinking=thinking) if tools or thinking else None


def _caches(family: Family, build: EngineBuild) -> Caches:
    on = family.vllm_offers.caches
    return Caches(prefix=on, processor_gib=_PROCESSOR_CACHE_GIB[build.device] if on else 0.0)


def _adapter_options(adapter: Adapter, serve: Serve) -> AdapterOptions:
    live = serve.live
    return AdapterOptions(
        max_rank=rank_slot(adapter.rank if live is None else live.max_rank) or LORA_RANKS[-1],
        towers=[tower for tower in TOWERS if adapter.modules.get(tower)],
        tower_connector=serve.tower_connector_lora,
        room=live and Room(max_adapters=live.max_adapters, at_once=live.at_once or live.max_adapters),
    )


def _architecture_problems(weights: Path, family: Family) -> list[Problem]:
    """vLLM takes the class that config.json names: with another one it would serve something else."""
    config = engine_config(weights, family) or json.loads((weights / "config.json").read_bytes())
    stated = config.get("architectures") or []
    if family.vllm_architecture in stated:
        return []
    what = f"architectures is {stated}, vLLM serves {family.title} as {family.vllm_architecture}"
    return [Problem(what, str(weights / "config.json"), "fetch or merge the checkpoint again")]


def _partial_problems(adapter: Adapter, family: Family, serve: Serve, build: EngineBuild) -> list[Problem]:
    """Towers whose part of the adapter the engine would leave out, without an error of its own."""
    problems: list[Problem] = []
    if why := family.vllm_no_adapters.get(build.device):
        problems.append(Problem(why, "serve.mode = adapter", _MEND))
    for tower, count in adapter.modules.items():
        option = family.vllm_adapts.get(tower)
        if option is None:
            what = f"vLLM does not apply the adapter's {count} {tower} modules"
            problems.append(Problem(what, "serve.mode = adapter", _MEND))
        elif option and not serve.tower_connector_lora:
            what = f"vLLM would leave out the adapter's {count} {tower} modules without {option}"
            mend = f"{_MEND}; or serve.tower_connector_lora: true"
            problems.append(Problem(what, "serve.mode = adapter", mend))
    most = LORA_RANKS[-1] if serve.live is None else serve.live.max_rank
    if adapter.rank > most:
        where = "serve.mode = adapter" if serve.live is None else "serve.live.max_rank"
        what = f"the adapter has rank {adapter.rank}, {most} is the most"
        problems.append(Problem(what, where, "merge it: serve.mode: merged"))
    return problems


def _hardware_problems(
    recipe: Recipe, weights: Path, hardware: Hardware, build: EngineBuild
) -> list[Problem]:
    serve = recipe.serve
    needed = weight_bytes(weights, serve.dtype if serve.quantization == "none" else serve.quantization)
    if build.device == "cuda":
        config = json.loads((weights / "config.json").read_bytes())
        return gpu_problems(serve, recipe.model_family, config, hardware.gpus, needed)
    problems = [
        Problem(
            "vLLM's CPU engine does not compute in FP8", f"serve.{key}", "leave it out, or serve on a GPU"
        )
        for key, value in (("quantization", serve.quantization), ("kv_cache_dtype", serve.kv_cache_dtype))
        if value == "fp8"
    ]
    needed += int(serve.kv_cache_gib * GIB)
    if needed > hardware.memory:
        what = f"weights and KV cache take {needed / GIB:.1f} GiB of {hardware.memory / GIB:.1f}"
        problems.append(Problem(what, "serve.kv_cache_gib", "lower it, or serve on a larger machine"))
    return problems


def weight_bytes(checkpoint: Path, dtype: str) -> int:
    """Bytes of the checkpoint's weights once loaded in `dtype`; its config says in which they are stored.

    For "fp8" at least so many: embeddings, norms and heads stay as they are.
    """
    sizes = {"float32": 4, "bfloat16": 2, "float16": 2, "fp8": 1}
    config = json.loads((checkpoint / "config.json").read_bytes())
    stored = config.get("dtype") or config.get("torch_dtype") or "bfloat16"
    total = sum(path.stat().st_size for path in checkpoint.glob("*.safetensors"))
    return total * sizes[dtype] // sizes.get(stored, 2)


def images_differ(family: str, device: str) -> str:
    """What an engine built for `device` is known to compute otherwise where a prompt has images, or ""."""
    return families.get(family).vllm_images.get(device, "")


def read_profile(artifact: Artifact) -> Profile:
    """The profile in an artifact. Raises IntegrityError where it was edited, InputError where unreadable."""
    if artifact.kind != "profile":
        raise InputError(f"{artifact.short} is not a profile")
    verify(artifact)
    return parse_profile(artifact.path / PROFILE_FILE)


@dataclass(frozen=True)
class Places:
    """Where on this machine what a profile names lies: the checkpoint, the adapter in mode adapter, and what
    the engine reads in place of the checkpoint's own files."""

    checkpoint: Path
    adapter: Path | None = None
    files: EngineFiles = NO_FILES


def find_places(artifact: Artifact, profile: Profile, home: Home) -> Places:
    """Find by id what `profile`, the content of `artifact`, serves.

    Raises InputError where the home has it no longer, IntegrityError where it is of another kind.
    """
    subject = home.by_id(profile.subject)
    if MODES.get(subject.kind) != profile.mode:
        raise IntegrityError(f"the profile says {profile.mode}, but {subject.short} is a {subject.kind}")
    files = find_engine_files(artifact.path)
    if profile.mode != "adapter":
        return Places(checkpoint_path(subject), files=files)
    return Places(checkpoint_path(home.by_id(profile.base)), files.adapter or subject.path, files)
