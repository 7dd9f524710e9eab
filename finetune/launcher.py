"""An accelerate launcher config, as far as a run depends on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lensmith.errors import InputError, Problem
from lensmith.recipe import Recipe
from lensmith.train_settings import Train
from lensmith.yaml_file import YamlFile, read_yaml

KINDS = ("NO", "MULTI_CPU", "MULTI_GPU", "DEEPSPEED", "FSDP")
# Where DeepSpeed may keep what a config offloads: the last one is no GPU's memory. NVMe was never tried here.
_DEVICES = (None, "none", "cpu")
# The one way in which FSDP is shown: what each setting must be, said in the file (accelerate's own values are
# others), and why.
_FSDP: dict[str, tuple[Any, str]] = {
    "fsdp_version": (
        2,
        "FSDP1 cannot divide weights of which some are trained, in float32, and most are not",
    ),
    "fsdp_auto_wrap_policy": ("TRANSFORMER_BASED_WRAP", "else all weights would be gathered at a time"),
    "fsdp_state_dict_type": ("FULL_STATE_DICT", "else checkpoints would hold each process's share alone"),
    "fsdp_reshard_after_forward": (True, "memory is planned by it"),
    "fsdp_offload_params": (False, "weights in host memory were not shown; use ZeRO stage 3 with offload"),
    "fsdp_cpu_ram_efficient_loading": (False, "adapters are made from weights that every process has read"),
}
_NO_CPU = "accelerate leaves FSDP out on a CPU without a word: no weight would be divided"
# Settings that the recipe has: stated twice, one of them would be silently ignored.
_THE_RECIPES = {
    "deepspeed_config.gradient_accumulation_steps": "train.gradient_accumulation",
    "deepspeed_config.gradient_clipping": "train.max_grad_norm",
    "fsdp_config.fsdp_activation_checkpointing": "train.gradient_checkpointing",
}


@dataclass(frozen=True)
class Launcher:
    """What a launcher config starts.

    processes: in all, over all machines. zero_stage: DeepSpeed's, 0 without DeepSpeed. offload_optimizer,
    offload_parameters: kept in host memory. cpu: no GPU is used. port, address: of the rendezvous; None and
    "" where the file states none. gathers: ZeRO stage 3 saves whole weights too, not its shards alone.
    """

    path: Path
    kind: str
    processes: int
    machines: int
    zero_stage: int
    offload_optimizer: bool
    offload_parameters: bool
    cpu: bool
    port: int | None
    address: str
    gathers: bool

    @property
    def fsdp(self) -> bool:
        """Whether weights, gradients and optimizer state are divided by FSDP2."""
        return self.kind == "FSDP"

    @property
    def divides_weights(self) -> bool:
        """Whether a process holds a part of the weights, and gathers the others' when a block runs."""
        return self.zero_stage == 3 or self.fsdp

    @property
    def in_weights_dtype(self) -> bool:
        """Whether DeepSpeed or FSDP2 lets the model compute in the dtype of its weights; else torch casts."""
        return self.zero_stage > 0 or self.fsdp

    @property
    def division(self) -> str:
        """How the training is divided over the processes, in words."""
        return division(self.zero_stage, self.fsdp)

    @property
    def processes_a_machine(self) -> int:
        return self.processes // self.machines

    def global_batch(self, recipe: Recipe) -> int:
        """Rows an optimizer step learns from."""
        return recipe.train.batch_size * recipe.train.gradient_accumulation * self.processes


def division(zero_stage: int, fsdp: bool) -> str:
    """How a training is divided over its processes, in words."""
    return "FSDP2" if fsdp else f"ZeRO stage {zero_stage}"


def read_launcher(path: Path) -> Launcher:
    """Read the accelerate config at `path`.

    Raises InputError with every problem: settings that accelerate would ignore, that contradict each other,
    or that the recipe already has.
    """
    file = read_yaml(path)
    deepspeed = file.content.get("deepspeed_config", {})
    problems: list[Problem] = []
    if not isinstance(deepspeed, dict):
        raise InputError(
            f"{path} cannot be used", [Problem("must hold settings", _at(file, path, "deepspeed_config"))]
        )

    def whole(name: str, default: int | None = None) -> int:
        value = file.content.get(name, default)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
            return value
        problems.append(Problem(f"a whole number from 1 is needed, not {value!r}", _at(file, path, name)))
        return 1

    kind = str(file.content.get("distributed_type", "NO"))
    launcher = Launcher(
        path=path,
        kind=kind,
        processes=whole("num_processes"),
        machines=whole("num_machines", 1),
        zero_stage=deepspeed.get("zero_stage", 0) if kind == "DEEPSPEED" else 0,
        offload_optimizer=_offloads(deepspeed.get("offload_optimizer_device")),
        offload_parameters=_offloads(deepspeed.get("offload_param_device")),
        cpu=file.content.get("use_cpu", False) is True,
        port=whole("main_process_port") if file.content.get("main_process_port") is not None else None,
        address=str(file.content.get("main_process_ip") or ""),
        gathers=deepspeed.get("zero3_save_16bit_model") is True,
    )
    problems += _contradictions(launcher, file, deepspeed)
    if problems:
        raise InputError(f"the launcher config {path} cannot be used", problems)
    return launcher


def method_problems(launcher: Launcher, recipe: Recipe) -> list[Problem]:
    """Why the recipe's method cannot be trained, or saved, as `launcher` divides the weights; also where
    bitsandbytes is needed and not installed."""
    problems: list[Problem] = []
    if recipe.train.method == "qlora" and find_spec("bitsandbytes") is None:
        what = "train.method qlora needs a package that is not installed"
        problems.append(Problem(what, "bitsandbytes", "run scripts/bootstrap"))
    return problems + division_problems(launcher, recipe)


def division_problems(launcher: Launcher, recipe: Recipe) -> list[Problem]:
    """What the recipe's method asks for and the launcher's way of dividing weights cannot give."""
    if not launcher.divides_weights:
        return []
    problems = [
        Problem(
            f"{asked} cannot be trained so: {launcher.division} divides {divided}",
            "train.launcher",
            f"use ZeRO stage 2; or {instead}",
        )
        for asked, divided, instead in _read_whole(recipe.train)
    ]
    if launcher.zero_stage == 3 and not recipe.train.adapts and not launcher.gathers:
        # An adapter transformers 5.20 gathers whatever it says (Trainer.save_model).
        what = "ZeRO stage 3 would save its shards alone: the trained weights would be lost"
        where = f"{launcher.path} deepspeed_config.zero3_save_16bit_model"
        problems.append(Problem(what, where, "set it to true"))
    return problems


def reads_whole_weights(train: Train) -> bool:
    """Whether ZeRO-3 and FSDP2, which hold parts of weights only, cannot be had."""
    return bool(_read_whole(train))


def _read_whole(train: Train) -> list[tuple[str, str, str]]:
    """What of the training reads weights whole: its name, what it reads, what to do without it.

    bitsandbytes dequantises whole weights, by scales that ZeRO-3 knows nothing of. Rows of new tokens are
    means of others', set before training. What PEFT reads outside of a module's forward pass is gathered: for
    DoRA by DeepSpeed, when an attribute is read; adapted experts by `gather_experts_whole`.
    """
    whole: list[tuple[str, str, str]] = []
    if train.method == "qlora":
        divided = "weights, which bitsandbytes reads whole"
        whole.append(("a base in 4 bits", divided, "set train.method to lora"))
    if train.new_tokens:
        divided = "the embeddings, whose rows are set and read whole"
        whole.append(("rows of new tokens", divided, "leave out train.new_tokens"))
    return whole


def _offloads(device: Any) -> bool:
    return device == "cpu"


def _offload_problems(launcher: Launcher, file: YamlFile, deepspeed: dict[str, Any]) -> Iterator[Problem]:
    names = ("offload_optimizer_device", "offload_param_device")
    for name in names:
        where = _at(file, launcher.path, f"deepspeed_config.{name}")
        if deepspeed.get(name) not in _DEVICES:
            yield Problem(f"{deepspeed[name]!r} is not one of none, cpu", where)
    where = _at(file, launcher.path, f"deepspeed_config.{names[1]}")
    if launcher.offload_parameters and launcher.zero_stage != 3:
        yield Problem(f"is ignored with ZeRO stage {launcher.zero_stage}", where, "set zero_stage to 3")


def _fsdp_problems(launcher: Launcher, file: YamlFile) -> Iterator[Problem]:
    settings = file.content.get("fsdp_config", {})
    if not launcher.fsdp:
        if settings:
            where = _at(file, launcher.path, "fsdp_config")
            yield Problem(f"is ignored with distributed_type {launcher.kind}", where, "set it to FSDP")
        return
    if launcher.cpu:
        yield Problem(_NO_CPU, _at(file, launcher.path, "use_cpu"), "use DEEPSPEED with zero_stage 3")
    if launcher.processes < 2:
        mend = 'set distributed_type to "NO"; or start a process for each GPU'
        yield Problem("one process divides nothing", _at(file, launcher.path, "num_processes"), mend)
    if not isinstance(settings, dict):
        yield Problem("must hold settings", _at(file, launcher.path, "fsdp_config"))
        return
    for name, (value, why) in _FSDP.items():
        found = settings.get(name)
        if found != value or type(found) is not type(value):
            where = _at(file, launcher.path, f"fsdp_config.{name}")
            yield Problem(f"{found!r} is not {value!r}: {why}", where, f"set it to {_yaml(value)}")
    for name in settings.keys() - _FSDP.keys() - {each.partition(".")[2] for each in _THE_RECIPES}:
        yield Problem("was not shown", _at(file, launcher.path, f"fsdp_config.{name}"), "leave it out")


def _yaml(value: Any) -> str:
    """A setting as YAML has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _at(file: YamlFile, path: Path, dotted: str) -> str:
    line = file.lines.get(dotted)
    return f"{path}:{line} {dotted}" if line else f"{path} {dotted}"


def _states(file: YamlFile, dotted: str) -> bool:
    section, _, name = dotted.partition(".")
    settings = file.content.get(section, {})
    return isinstance(settings, dict) and name in settings


def _contradictions(launcher: Launcher, file: YamlFile, deepspeed: dict[str, Any]) -> list[Problem]:
    path, kind = launcher.path, launcher.kind
    problems = [
        Problem("is the recipe's to say", _at(file, path, dotted), f"remove it; set {key} in the recipe")
        for dotted, key in _THE_RECIPES.items()
        if _states(file, dotted)
    ]
    problems += _fsdp_problems(launcher, file)
    if kind not in KINDS:
        problems.append(
            Problem(f"{kind!r} is not one of {', '.join(KINDS)}", _at(file, path, "distributed_type"))
        )
    if kind == "DEEPSPEED" and launcher.zero_stage not in (1, 2, 3):
        where = _at(file, path, "deepspeed_config.zero_stage")
        problems.append(Problem("1, 2 or 3 is needed: memory is planned by it", where))
    if kind != "DEEPSPEED" and deepspeed:
        where = _at(file, path, "deepspeed_config")
        problems.append(Problem(f"is ignored with distributed_type {kind}", where, "set it to DEEPSPEED"))
    problems += _offload_problems(launcher, file, deepspeed)
    if "deepspeed_config_file" in deepspeed:
        where = _at(file, path, "deepspeed_config.deepspeed_config_file")
        problems.append(Problem("hides settings in another file", where, "state them here"))
    if kind == "NO" and launcher.processes > 1:
        where = _at(file, path, "num_processes")
        problems.append(
            Problem(f"accelerate starts one process for type NO, not {launcher.processes}", where)
        )
    if kind == "MULTI_CPU" and launcher.processes != launcher.machines:
        where = _at(file, path, "num_processes")
        problems.append(
            Problem("accelerate starts one process a machine for MULTI_CPU", where, "use DEEPSPEED")
        )
    if launcher.processes % launcher.machines:
        problems.append(
            Problem(f"does not divide over {launcher.machines} machines", _at(file, path, "num_processes"))
        )
    if file.content.get("mixed_precision", "no") not in ("no", False):
        where = _at(file, path, "mixed_precision")
        problems.append(
            Problem("is the recipe's to say", where, 'set it to "no"; train.dtype in the recipe decides')
        )
    return problems
