"""Files that the engine reads in place of the checkpoint's own and the adapter's: a profile holds them in a
folder.

A config.json in the form vLLM asks for; an adapter in the names of its modules; and for a family whose
processor puts a token before every prompt a chat template that writes it: vLLM tokenizes a rendered prompt as
it is, and its own class for such a family adds the token to prompts with images only (0.32, Molmo2).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lensmith.adapter_files import ADAPTER_CONFIG
from lensmith.base import read_template
from lensmith.families.family import Family

ENGINE_FOLDER, ADAPTER_FOLDER = "engine", "adapter"
CONFIG, TEMPLATE = "config.json", "chat_template.jinja"

# As the family's processor: BOS, EOS where there is none, unless the prompt begins with it. Names that no
# template sets.
_LED = """\
{{%- set lensmith_lead = bos_token or eos_token -%}}
{{%- set lensmith_prompt %}}{template}{{% endset -%}}
{{{{- lensmith_prompt if lensmith_prompt.startswith(lensmith_lead) else lensmith_lead ~ lensmith_prompt -}}}}
"""


@dataclass(frozen=True)
class EngineFiles:
    """Where those that there are lie: the folder of a config.json; the chat template; an adapter's folder."""

    config: Path | None = None
    template: Path | None = None
    adapter: Path | None = None


NO_FILES = EngineFiles()


def engine_files(weights: Path, family: Family) -> dict[str, str]:
    """The files' contents by name, for this checkpoint; empty where the engine reads the checkpoint's own."""
    files: dict[str, str] = {}
    if (config := engine_config(weights, family)) is not None:
        files[CONFIG] = json.dumps(config, indent=2) + "\n"
    if family.leads:
        # A template file's last line break is none of its output.
        files[TEMPLATE] = _LED.format(template=read_template(weights).removesuffix("\n"))
    return files


def engine_config(weights: Path, family: Family) -> dict[str, Any] | None:
    """config.json in the form that vLLM reads, where that is not the checkpoint's own."""
    if family.vllm_config is None:
        return None
    return family.vllm_config(json.loads((weights / CONFIG).read_bytes()))


def find_engine_files(profile: Path) -> EngineFiles:
    """Those in a profile's folder."""
    folder = profile / ENGINE_FOLDER
    adapter = folder / ADAPTER_FOLDER
    return EngineFiles(
        config=folder if (folder / CONFIG).is_file() else None,
        template=folder / TEMPLATE if (folder / TEMPLATE).is_file() else None,
        adapter=adapter if (adapter / ADAPTER_CONFIG).is_file() else None,
    )
