"""The installed vLLM reads every command line as it is meant, and families as their facts say. No engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lensmith import families
from lensmith.families.layout import AS_IN_CLASS
from lensmith.rendering import Rendering
from lensmith.sample import Message, Text, Thinking, ToolCall
from serving.guard import OPEN
from serving.profile_file import Profile
from tests.conftest import ROOT
from tests.serving.shipped import arguments, profiles

pytestmark = pytest.mark.slow

ARGUMENTS = {"label": "a b", "deep": {"list": [1, 2]}}
SPOKEN = Message("assistant", (Thinking("Too small."), Text("I look."), ToolCall("zoom", ARGUMENTS)))
PROPERTIES = {"label": {"type": "string"}, "deep": {"type": "object"}}
TOOLS = [
    {
        "type": "function",
        "function": {"name": "zoom", "parameters": {"type": "object", "properties": PROPERTIES}},
    }
]
SPEAKING = [name for name, family in families.FAMILIES.items() if family.vllm_offers.tool_parser]
_LIMIT_S = 300


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one vLLM process says of all of it: importing vLLM takes twenty seconds."""
    folder = tmp_path_factory.mktemp("tiny")
    # The engine's arguments look for the checkpoint, though nobody reads it.
    here = {"/model": str(folder)}
    asked = {
        "commands": {
            name: [here.get(word, word) for word in arguments(each)] for name, each in profiles().items()
        },
        "answers": {
            name: {"answer": Rendering(families.get(name)).answer(SPOKEN), "tools": TOOLS}
            for name in SPEAKING
        },
    }
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("ask_vllm.py")), str(folder)],
        input=json.dumps(asked),
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'scripts'}"},
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("@")]
    assert lines, done.stderr[-3000:]
    return json.loads(lines[-1][1:])


@pytest.mark.parametrize("name", profiles())
def test_every_command_line_says_to_vllm_what_the_profile_says(told: dict[str, Any], name: str) -> None:
    said, profile = told["understood"][name], profiles()[name]
    cuda = profile.cuda
    assert cuda is not None
    assert said["tensor_parallel_size"] == cuda.tensor_parallel
    assert said["data_parallel_size"] == cuda.data_parallel
    assert said["mm_encoder_tp_mode"] == cuda.encoder_parallel
    assert said["enable_expert_parallel"] == cuda.expert_parallel
    assert said["quantization"] == (None if cuda.quantization == "none" else cuda.quantization)
    assert said["kv_cache_dtype"] == cuda.kv_cache_dtype
    assert said["limit_mm_per_prompt"] == {"image": profile.images.per_prompt, "video": 0}
    assert said["enable_prefix_caching"] == profile.caches.prefix
    assert said["mm_processor_cache_gb"] == profile.caches.processor_gib
    _check_closed(said)
    _check_parsers(said, profile)


def test_without_the_key_vllm_s_own_server_tells_whether_it_lives_and_nothing_else(
    told: dict[str, Any],
) -> None:
    """Of every path that it has: a new one of a later version is closed, or shows here."""
    statuses = told["doors"]
    paths = {door.partition(" ")[2] for door, status in statuses.items() if status not in (401, 403)}
    assert paths == set(OPEN) - {"/metrics/"}
    for name in ("/invocations", "/generative_scoring", "/tokenize", "/scale_elastic_ep"):
        assert statuses[f"POST {name}"] == 403
    assert statuses["POST /v1/chat/completions"] == statuses["GET /v1/models"] == 401


def _check_closed(said: dict[str, Any]) -> None:
    assert said["allowed_media_domains"] == ["media.invalid"]
    assert said["allowed_local_media_path"] == ""
    assert said["generation_config"] == "vllm"
    for name in (
        "trust_remote_code",
        "enable_prompt_embeds",
        "enable_mm_embeds",
        "enable_log_requests",
        "enable_log_outputs",
        "trust_request_chat_template",
        "trust_request_mm_kwargs",
    ):
        assert said[name] is False, name


def _check_parsers(said: dict[str, Any], profile: Profile) -> None:
    parsers = profile.parsers
    assert said["tool_call_parser"] == (parsers and parsers.tools)
    assert said["enable_auto_tool_choice"] == bool(parsers and parsers.tools)
    thinking = said["reasoning_parser"] or None
    assert thinking == (parsers and parsers.thinking)


@pytest.mark.parametrize("family", SPEAKING)
def test_vllm_s_parsers_take_apart_what_the_family_writes(told: dict[str, Any], family: str) -> None:
    apart = told["apart"][family]
    assert apart["thought"].strip() == "Too small."
    assert apart["content"].strip() == "I look."
    assert apart["calls"] == [["zoom", ARGUMENTS]]


@pytest.mark.parametrize("family", families.FAMILIES)
def test_vllm_s_classes_can_what_the_facts_say(told: dict[str, Any], family: str) -> None:
    facts, can = families.get(family), told["abilities"][family]
    assert can["class"] == facts.vllm_architecture
    assert bool(can["encoder_data"]) == facts.vllm_offers.encoder_data


@pytest.mark.parametrize("family", families.FAMILIES)
def test_where_vllm_puts_an_adapter_of_the_decoder(told: dict[str, Any], family: str) -> None:
    """Its classes have the decoder's layers in `language_model.model`. Elsewhere nothing takes the adapter,
    and nothing is said: such a family's adapters must be refused, or named otherwise for vLLM."""
    facts, can = families.get(family), told["abilities"][family]
    assert can["lora"], "vLLM's class takes adapters"
    found = can["decoder"] == "language_model.model.layers.0.self_attn.q_proj"
    assert found or not facts.vllm_adapts or facts.vllm_names is not AS_IN_CLASS
    assert found == (family not in ("deepseek_ocr2", "molmo2")), can["decoder"]


def test_only_families_that_speak_so_have_parsers() -> None:
    for family in families.FAMILIES.values():
        assert bool(family.vllm_offers.tool_parser) == (family.speech.call is not None)
        assert bool(family.vllm_offers.reasoning_parser) == (family.speech.thinking is not None)
        assert family.experts is not None or not family.vllm_offers.experts
