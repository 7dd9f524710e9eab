"""What vLLM offers for a family beside serving it, and what its own recipes turn on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class EngineOffer:
    """Facts of vLLM's class for a family; a test holds names and abilities to the installed vLLM.

    tool_parser: its parser of the calls that the family's chat template writes, "" where it calls no tools.
    reasoning_parser: the same of thoughts.
    encoder_data: each GPU of a tensor-parallel group can hold the whole vision tower and take a share of the
        images; where it cannot, vLLM ignores the option with one line in its log.
    vision_heads: the dotted path of config.json's number of heads of the vision tower, which tensor parallel
        GPUs share out evenly otherwise; "" where the tower is never cut.
    experts: whether experts can be spread over GPUs: "on" where the engine's recipe does so, "off" where it
        only says that one may, "" where there are none, or it does not say.
    caches: whether its recipe leaves the caches of prompts and images on.
    """

    tool_parser: str = ""
    reasoning_parser: str = ""
    encoder_data: bool = False
    vision_heads: str = ""
    experts: Literal["on", "off", ""] = ""
    caches: bool = True
