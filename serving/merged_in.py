"""What a release's card says of the adapters that were combined in it: which, by what weights, under what
licence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lensmith.adapter_files import ADAPTER_WEIGHTS
from lensmith.artifact import Artifact
from lensmith.home import Home
from lensmith.merge_settings import Method
from lensmith.train_settings import Lora

_ROLE = "adapter_"
_METHODS: dict[Method, str] = {
    "linear": "as their weighted sum",
    "ties": "by TIES (arXiv 2306.01708)",
    "dare_linear": "by DARE (arXiv 2311.03099) and as their weighted sum",
    "dare_ties": "by DARE (arXiv 2311.03099) and TIES (arXiv 2306.01708)",
}
_NOT_STATED = "not stated"


def read_others(home: Home, model: Artifact) -> list[Artifact]:
    """The further adapters that `model` was made from beside its run, in the recipe's order."""
    inputs = model.manifest.inputs
    numbers = sorted(int(role.removeprefix(_ROLE)) for role in inputs if role.startswith(_ROLE))
    return [home.by_id(inputs[f"{_ROLE}{number}"]) for number in numbers]


def merged_in(run: Artifact, others: Sequence[Artifact], combination: Mapping[str, Any], licence: str) -> str:
    """The card's section on `run` and the `others` it was combined with, as the model's body says; licence:
    the base's."""
    weights: Sequence[float] = combination["weights"]
    settings = [
        f"{name} {combination[name]:g}" for name in ("density", "seed") if combination[name] is not None
    ]
    how = ", ".join([_METHODS[combination["method"]], *settings])
    members = [(run, "this fine-tune"), *((each, "") for each in others)]
    lines = [
        _line(member, role, weight, licence) for (member, role), weight in zip(members, weights, strict=True)
    ]
    table = "\n".join(lines)
    return (
        "## What was merged\n\n"
        f"What {len(members)} adapters add to the base's weights was combined {how}. Evaluation and proofs"
        " are of the outcome; no adapter was judged by itself.\n\n"
        "| adapter | weight | made by | data | licence |\n|---|--:|---|---|---|\n"
        f"{table}"
    )


def other_licences(others: Sequence[Artifact], licence: str) -> list[str]:
    """The licences that adapters from outside state, other than the base's, in small letters."""
    stated = {str(each.body.get("licence", "")).lower() for each in others if each.kind == "adapter"}
    return sorted(stated - {"", licence.lower()})


def _line(member: Artifact, role: str, weight: float, licence: str) -> str:
    if member.kind == "run":
        name = f"`{member.short}`" + (f", {role}" if role else "")
        lora = Lora.model_validate(member.body["asked"]["train"]["lora"])
        made = f"Lensmith: rank {lora.rank}, alpha {lora.alpha:g}"
        data = f"`dataset-{member.manifest.inputs['dataset'][:12]}`"
        held = f"{licence}, the base's"
    else:
        # Of another's folder nothing is known but its bytes and what the card beside it states.
        digest = member.body["source"][ADAPTER_WEIGHTS][:12]
        name = f"`{member.short}`, from outside ({ADAPTER_WEIGHTS} SHA-256 `{digest}`)"
        made = "others"
        data = ", ".join(member.body.get("datasets", ())) or _NOT_STATED
        held = member.body.get("licence", "") or _NOT_STATED
    return f"| {name} | {weight:g} | {made} | {data} | {held} |"
