"""How routed experts are computed while a model trains."""

from __future__ import annotations

from peft.tuners.lora import ParamWrapper
from torch import nn
from transformers import PreTrainedModel

from lensmith.errors import IntegrityError, Problem
from lensmith.families.family import Family

# All experts of a layer in one call of torch's grouped product, on CPUs too. Of transformers' other ways
# "eager" runs them one after the other, and "batched_mm" copies an expert's weights for each of its tokens.
FASTEST = "grouped_mm"


def experts_way(family: Family) -> str | None:
    """How the family's routed experts are computed in training; None where it has none."""
    return None if family.experts is None else FASTEST


def group_experts(model: PreTrainedModel, family: Family) -> None:
    """Let `model` compute its routed experts in that way, whatever transformers would choose."""
    way = experts_way(family)
    if way is not None:
        model.set_experts_implementation(way)


def gather_experts_whole(model: nn.Module) -> None:
    """Let ZeRO-3 gather each layer's adapted experts with their adapter at once.

    PEFT 0.21 reads them outside the forward pass of their modules (tuners/lora/layer.py, ParamWrapper): left
    to itself DeepSpeed loses its order of gathering in the second step.
    """
    # Imported only where it is used: it takes seconds.
    from deepspeed.utils import set_z3_leaf_modules

    set_z3_leaf_modules(model, [ParamWrapper])


def check_experts(model: PreTrainedModel, family: Family) -> dict[str, str]:
    """For a run's record, how the routed experts were computed; nothing for a family without.

    Raises IntegrityError where it was another way than `experts_way`.
    """
    way = experts_way(family)
    if way is None:
        return {}
    ran = model.get_experts_implementation()["text_config"]
    if ran != way:
        problem = Problem(f"{ran} ran, not {way}", "routed experts")
        raise IntegrityError("the experts were not computed as planned", [problem])
    return {"experts": way}
