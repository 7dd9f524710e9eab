"""What a method cannot do with a family, or an engine with what it makes: known when the recipe is read."""

from __future__ import annotations

from lensmith.data_settings import Data
from lensmith.engine_versions import is_known
from lensmith.errors import Problem
from lensmith.families.family import Family
from lensmith.lora_ranks import LORA_RANKS, rank_slot
from lensmith.new_tokens import string_problems
from lensmith.serve_settings import Serve
from lensmith.train_settings import Train

_MERGE = "merge it: serve.mode: merged"


def family_problems(train: Train, data: Data, family: Family) -> list[str]:
    """Everything that `train` and `data` ask for and cannot be trained in `family`."""
    problems: list[str] = []
    unable = [tower for tower in train.towers.in_mode("adapt") if not family.adaptable(tower)]
    if unable:
        names = ", ".join(unable)
        problems.append(f"{family.title} has no linear layer that LoRA could adapt in: {names}")
    for tower in train.whole_beside:
        if why := family.not_whole.get(tower):
            mend = f"set towers.{tower} to adapt or freeze, or train.method to full"
            problems.append(
                f"{family.title}'s {tower} cannot be trained whole beside an adapter: {why}; {mend}"
            )
    if train.lora.experts is not None and family.experts is None:
        problems.append(f"{family.title} has no routed experts: leave out train.lora.experts")
    if train.lora.experts is not None and train.method == "qlora":
        mend = "set train.method to lora, or leave out train.lora.experts"
        problems.append(f"adapters of routed experts are not shown to be learned with method qlora: {mend}")
    if train.pack_length and not family.packs:
        problem = f"packed rows are not proven to learn the same in {family.title}"
        problems.append(f"{problem}: remove train.pack_length")
    if data.video is not None and family.video is None:
        mend = "remove data.video, its rows are refused then; or choose another family"
        problems.append(f"videos are not shown to be learned in {family.title}: {mend}")
    return problems + _new_token_problems(train, family)


def _new_token_problems(train: Train, family: Family) -> list[str]:
    """What of `train.new_tokens` cannot be trained; the checkpoint's tokenizer is asked when it is there."""
    if not train.new_tokens:
        return []
    problems: list[str] = []
    if family.no_new_tokens:
        problems.append(f"{family.no_new_tokens}, in {family.title}: remove them")
    if train.method == "qlora":
        problems.append("not shown to be learned with method qlora: set train.method to lora")
    if train.adapts and train.lora.variant == "dora":
        problems.append("not shown to be learned with DoRA: set train.lora.variant to lora or rslora")
    if train.objective == "dpo":
        problems.append("not shown to be learned with objective dpo: learn them with objective answers first")
    if train.method == "full" and train.towers.language != "train":
        mend = "set train.towers.language to train, or train.method to lora"
        problems.append(f"they are weights of the language model, which is frozen: {mend}")
    problems += string_problems(train.new_tokens, family.markup)
    return [f"train.new_tokens: {each}" for each in problems]


def adapter_problems(train: Train, family: Family, serve: Serve) -> list[str]:
    """Why vLLM, started as `serve` says, would not apply the adapter that `train` makes, not all of it, or to
    other weights."""
    if not train.adapts:
        return ["train.method full makes no adapter to serve: set serve.mode to merged"]
    problems: list[str] = []
    if train.method == "qlora":
        problem = "vLLM would apply the adapter to the base as it is, it is trained on the base in 4 bits"
        problems.append(f"{problem}: {_MERGE}")
    if train.lora.variant == "dora":
        problems.append(f"vLLM applies no DoRA adapter: {_MERGE}")
    if whole := train.whole_beside:
        names = ", ".join(whole)
        problems.append(f"vLLM's adapters hold no tower that is trained whole, as {names} is: {_MERGE}")
    if train.lora.experts is not None:
        problems.append(f"an adapter of routed experts is not proven to be served as trained: {_MERGE}")
    if train.new_tokens:
        problems.append(f"vLLM's adapters hold no rows of new tokens, nor their tokenizer: {_MERGE}")
    options = family.vllm_adapts
    if not options:
        why = "; ".join(f"built for {device}, {what}" for device, what in family.vllm_no_adapters.items())
        problem = f"vLLM applies no adapter of {family.title}, so it will be merged: set serve.mode to merged"
        return [*problems, f"{problem} ({why})"]
    adapted = train.towers.in_mode("adapt")
    ranks = {tower: family.vllm_rank(tower, train.lora.rank_of(tower)) for tower in adapted}
    if too_large := [f"{tower} has {rank}" for tower, rank in ranks.items() if rank_slot(rank) is None]:
        problems.append(f"vLLM serves adapters up to rank {LORA_RANKS[-1]}, {', '.join(too_large)}: {_MERGE}")
    elif serve.live is not None and (rank := max(ranks.values(), default=0)) > serve.live.max_rank:
        mend = f"set it to {rank}, for all that share the engine; or {_MERGE}, without serve.live"
        problems.append(f"the adapter's rank {rank} is above serve.live.max_rank: {mend}")
    unable = [tower for tower in adapted if tower not in options]
    needing = [tower for tower in adapted if options.get(tower) and not serve.tower_connector_lora]
    left_out = [tower for tower in adapted if tower in (*unable, *needing)]
    if left_out:
        mend = _MERGE if unable else f"{_MERGE}; or serve.tower_connector_lora: true"
        problems.append(f"the adapter would be served in part, without {', '.join(left_out)}: {mend}")
    return problems


def engine_problems(serve: Serve, family: Family, version: str) -> list[Problem]:
    """Everything that `serve` asks of vLLM's `version` and of which nobody has looked whether that can do it
    for the family; what a serve proof shows of any version is not among it."""
    known = family.vllm_versions
    if is_known(version, known):
        return []
    asked = {
        "mode = adapter": (serve.mode == "adapter", "which adapters it applies whole, of what rank", _MERGE),
        "tools": (serve.tools, "how it takes calls out of an answer", "leave it out"),
        "thinking": (serve.thinking, "how it takes thoughts out of an answer", "leave it out"),
        "encoder_parallel": (
            serve.encoder_parallel == "data",
            "whether each GPU can hold the whole vision tower",
            "set it to auto",
        ),
        "expert_parallel": (
            serve.expert_parallel is True,
            "whether experts can be spread over GPUs",
            "set it to auto",
        ),
    }
    return [
        Problem(
            f"not known for vLLM {version} and {family.title} (known for {', '.join(known)}): {what}",
            f"serve.{where}",
            mend,
        )
        for where, (is_asked, what, mend) in asked.items()
        if is_asked
    ]


def serve_problems(serve: Serve, train: Train, family: Family) -> list[str]:
    """Everything that `serve` asks of vLLM and it cannot do for the family."""
    offers = family.vllm_offers
    problems: list[str] = []
    if family.video and family.video.served is not None and serve.max_videos > family.video.served:
        problem = f"vLLM takes at most {family.video.served} of {family.title} in a request"
        problems.append(f"serve.max_videos: {problem}: lower it")
    if serve.tools and not offers.tool_parser:
        problems.append(f"serve.tools: {family.title} calls no tools that vLLM could take out of an answer")
    if serve.thinking and not offers.reasoning_parser:
        problems.append(f"serve.thinking: vLLM knows no thoughts of {family.title}")
    if serve.thinking and train.thinking == "drop":
        problems.append("serve.thinking: train.thinking drop teaches answers without thoughts")
    if serve.expert_parallel is True:
        if not offers.experts:
            lacks = (
                "has no routed experts" if family.experts is None else "is not offered so by vLLM's recipe"
            )
            problems.append(f"serve.expert_parallel: {family.title} {lacks}: set it to auto")
        elif serve.gpus == 1:
            problems.append("serve.expert_parallel: one GPU has nothing to share: set it to auto")
    if serve.encoder_parallel == "data":
        if not offers.encoder_data:
            problem = f"vLLM would cut the vision tower of {family.title} all the same"
            problems.append(f"serve.encoder_parallel: {problem}: set it to auto")
        elif serve.tensor_parallel == 1:
            problems.append("serve.encoder_parallel: one GPU has nothing to share: set it to auto")
    for key, value in (("quantization", serve.quantization), ("kv_cache_dtype", serve.kv_cache_dtype)):
        if value == "fp8" and serve.dtype != "bfloat16":
            problems.append(f"serve.{key}: fp8 goes with dtype bfloat16, not {serve.dtype}")
    return problems
