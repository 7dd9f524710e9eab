"""Signs that an adapter of another tool was trained on other values than a base in whole numbers of bits has.

Such an adapter is added to what the quantised weights were worth. PEFT's files do not say it: what does is
the base's name (Unsloth's checkpoints end in bnb-4bit), and the tools' own files beside the adapter.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lensmith.adapter_files import ADAPTER_CONFIG
from lensmith.errors import Problem

_MEND = (
    "give the base with the values that it was trained on, dequantised, and say so: scripts/merge_adapter.py"
    " --base-as-trained; or train it here with method: qlora"
)
_NAME = re.compile(
    r"(?<![a-z0-9])(bnb|[48]-?bits?|int[48]|nf4|awq|gptq|fp8|hqq|aqlm|gguf)(?![a-z0-9])", re.IGNORECASE
)
# As ms-swift keeps its arguments; what is null or 0 was not asked for.
_ARGUMENTS, _ASKED = "args.json", ("quant_bits", "quant_method", "load_in_4bit", "load_in_8bit")
# LLaMA-Factory's arguments, and the cards of Axolotl and of PEFT until 0.7.
_TEXTS = ("training_args.yaml", "llamaboard_config.yaml", "README.md")
_STATED = re.compile(
    r"^\W*(?:top\.)?(?P<what>quantization_bit:\s*['\"]?[1-9]\d*|load_in_[48]bit:\s*true)\b",
    re.IGNORECASE | re.MULTILINE,
)


def quantized_signs(source: Path, config: dict[str, Any]) -> Iterator[Problem]:
    """What in the folder `source`, whose adapter's config is `config`, says that the base was quantised."""
    name = str(config.get("base_model_name_or_path") or "")
    if found := _NAME.search(name):
        yield _problem(f"its base was {name} ({found[0]})", source / ADAPTER_CONFIG)
    for key, value in _arguments(source / _ARGUMENTS).items():
        if key in _ASKED and value:
            yield _problem(f"{key} was {value}", source / _ARGUMENTS)
    for path in (source / name for name in _TEXTS):
        if path.is_file() and (match := _STATED.search(path.read_text(encoding="utf-8", errors="replace"))):
            yield _problem(f"it says {match['what']}", path)


def _arguments(path: Path) -> dict[str, Any]:
    """What such a file says; nothing where there is none, or it is another tool's."""
    try:
        stated = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return stated if isinstance(stated, dict) else {}


def _problem(what: str, path: Path) -> Problem:
    return Problem(f"trained on a quantised base: {what}", str(path), _MEND)
