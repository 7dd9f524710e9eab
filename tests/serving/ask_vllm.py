"""Asks the installed vLLM, in a process of its own, what it makes of command lines and of answers.

python tests/serving/ask_vllm.py FOLDER < ASKED > TOLD, both JSON. It has the say: its own parser of
arguments, its own check of parsers' names, its classes' abilities, its parsers on what families write.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

import httpx
from tiny_families import write_tiny
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.app import build_app
from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.entrypoints.openai.api_server import validate_api_server_args
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.lora.utils import parse_fine_tuned_lora_name
from vllm.model_executor.models import ModelRegistry
from vllm.reasoning import ReasoningParserManager
from vllm.tool_parsers import ToolParserManager
from vllm.utils.argparse_utils import FlexibleArgumentParser

from lensmith import families


def understood(argv: list[str]) -> dict[str, Any]:
    """The options as vLLM's own parser reads them and its engine takes them."""
    parsed = make_arg_parser(FlexibleArgumentParser()).parse_args(argv)
    validate_parsed_serve_args(parsed)
    validate_api_server_args(parsed)
    # Raises for an option that the engine does not take.
    AsyncEngineArgs.from_cli_args(parsed)
    return {name: _plain(value) for name, value in vars(parsed).items()}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return _plain(vars(value))
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value if isinstance(value, str | int | float | None) else str(value)


def taken_apart(family: str, answer: str, tools: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    """Thought, calls and text that vLLM's parsers for the family find in an answer."""
    offers = families.get(family).vllm_offers
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(write_tiny(family, folder / family))
    request = ChatCompletionRequest.model_validate(
        {"model": "m", "messages": [{"role": "user", "content": "?"}], "tools": tools}
    )
    thinks = ReasoningParserManager.get_reasoning_parser(offers.reasoning_parser)(tokenizer)
    thought, rest = thinks.extract_reasoning(answer, request)
    calls = ToolParserManager.get_tool_parser(offers.tool_parser)(tokenizer, request.tools)
    found = calls.extract_tool_calls(rest or "", request)
    return {
        "thought": thought,
        "content": found.content,
        "calls": [[each.function.name, json.loads(each.function.arguments)] for each in found.tool_calls],
    }


def abilities(family: str) -> dict[str, Any]:
    """What vLLM's class for the family can."""
    name = families.get(family).vllm_architecture
    model = ModelRegistry._try_load_model_cls(name)
    return {
        "class": model and model.__name__,
        "encoder_data": getattr(model, "supports_encoder_tp_data", None),
        "lora": getattr(model, "supports_lora", None),
        "decoder": decoder_name(family, model),
    }


def decoder_name(family: str, model: Any) -> str:
    """Where vLLM puts what an adapter has for the first layer of transformers' decoder."""
    decoder = families.get(family).towers["language"][0]
    name = f"base_model.model.{decoder}.layers.0.self_attn.q_proj.lora_A.weight"
    module, _ = parse_fine_tuned_lora_name(name, model.hf_to_vllm_mapper)
    return module


def doors(argv: list[str]) -> dict[str, int]:
    """By method and path, every one that vLLM's own server has for a model that generates, the status of the
    answer to a request without a key. Nothing runs behind it: what is let in ends in one of its errors."""
    os.environ["VLLM_API_KEY"] = "a key"
    app = build_app(make_arg_parser(FlexibleArgumentParser()).parse_args(argv), ("generate",))
    client = httpx.AsyncClient(
        transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://engine"
    )

    async def statuses() -> dict[str, int]:
        return {
            f"{method} {route.path}": (await client.request(method, route.path, json={})).status_code
            for route in app.routes
            for method in sorted(getattr(route, "methods", None) or {"GET"})
        }

    return asyncio.run(statuses())


def main() -> None:
    """Answer everything that was asked."""
    asked = json.load(sys.stdin)
    told = {
        "understood": {name: understood(argv) for name, argv in asked["commands"].items()},
        "apart": {
            family: taken_apart(family, each["answer"], each["tools"], Path(sys.argv[1]))
            for family, each in asked["answers"].items()
        },
        "doors": doors(next(iter(asked["commands"].values()))),
        "abilities": {family: abilities(family) for family in families.FAMILIES},
    }
    print("\n@" + json.dumps(told))


main()
