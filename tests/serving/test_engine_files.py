"""What the engine reads in place of the checkpoint's own files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from lensmith import families
from serving.engine_files import CONFIG, ENGINE_FOLDER, NO_FILES, TEMPLATE, engine_files, find_engine_files
from tests.serving.small import write_checkpoint

PLAIN = families.get("qwen3_vl")
LED = replace(PLAIN, leads=True)
TURNS = """\
{%- for message in messages %}
<{{ message }}>
{% endfor %}
"""


def render(template: str, **given: str) -> str:
    """As transformers renders a chat template; vLLM goes through it."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(messages=["a", "b"], **given)


@pytest.mark.parametrize(
    ("own", "bos", "lead"),
    [(TURNS, "[B]", "[B]"), (TURNS, None, "[E]"), ("{{ bos_token }}" + TURNS, "[B]", "")],
    ids=["bos", "eos", "there"],
)
def test_the_token_before_every_prompt_is_written(
    tmp_path: Path, own: str, bos: str | None, lead: str
) -> None:
    weights = write_checkpoint(tmp_path / "base")
    (weights / "chat_template.jinja").write_text(own)
    files = engine_files(weights, LED)
    assert list(files) == [TEMPLATE]
    given = {"eos_token": "[E]"} | ({"bos_token": bos} if bos else {})
    assert render(files[TEMPLATE], **given) == lead + render(own, **given)


def test_a_checkpoint_that_vllm_reads_as_it_is_needs_none(tmp_path: Path) -> None:
    assert engine_files(write_checkpoint(tmp_path / "base"), PLAIN) == {}


def test_each_file_is_found_alone(tmp_path: Path) -> None:
    folder = tmp_path / ENGINE_FOLDER
    assert find_engine_files(tmp_path) == NO_FILES
    folder.mkdir()
    (folder / TEMPLATE).write_text("")
    found = find_engine_files(tmp_path)
    assert (found.config, found.template) == (None, folder / TEMPLATE)
    (folder / TEMPLATE).rename(folder / CONFIG)
    found = find_engine_files(tmp_path)
    assert (found.config, found.template) == (folder, None)
