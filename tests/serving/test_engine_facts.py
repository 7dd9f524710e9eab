"""What is stated of vLLM is stated of the installed one, and is what its source says: an upgrade shows here
first. The text is read, not imported: that takes twenty seconds."""

from __future__ import annotations

import ast
import functools
import importlib.util
from pathlib import Path

import pytest

from lensmith import families
from lensmith.engine_versions import KNOWN, is_known
from lensmith.lora_ranks import LORA_RANKS
from serving.adapter import NOT_APPLIED
from serving.build import installed_engine

_MODELS = "model_executor/models"
Body = list[ast.stmt]


@functools.cache
def engine_source(name: str) -> ast.Module:
    """The text of a module of the installed vLLM."""
    spec = importlib.util.find_spec("vllm")
    assert spec is not None
    assert spec.origin is not None
    return ast.parse((Path(spec.origin).parent / name).read_text())


def assigned(body: Body, name: str) -> ast.expr:
    """What a module or class assigns to a name."""
    found = [
        each.value
        for each in body
        if isinstance(each, ast.Assign | ast.AnnAssign)
        and name
        in {ast.unparse(target) for target in getattr(each, "targets", [getattr(each, "target", None)])}
    ]
    assert found, name
    assert found[0] is not None
    return found[0]


def class_of(architecture: str) -> tuple[str, str]:
    """The module and class that vLLM's registry has for an architecture."""
    for table in engine_source(f"{_MODELS}/registry.py").body:
        if isinstance(table, ast.Assign) and isinstance(table.value, ast.Dict):
            for key, value in zip(table.value.keys, table.value.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == architecture:
                    module, name = ast.literal_eval(value)
                    return module, name
    raise AssertionError(f"vLLM has no {architecture}")


def stated_by(module: str, name: str) -> dict[str, object]:
    """The plain values that a class and its bases of vLLM's models state, and each base's name as a key."""
    tree = engine_source(f"{_MODELS}/{module}.py")
    classes = {each.name: each for each in tree.body if isinstance(each, ast.ClassDef)}
    imported = {
        alias.asname or alias.name: each.module or ""
        for each in tree.body
        if isinstance(each, ast.ImportFrom) and each.level == 1
        for alias in each.names
    }
    stated: dict[str, object] = {}
    for base in (ast.unparse(each) for each in reversed(classes[name].bases)):
        stated[base] = True
        if base in classes:
            stated |= stated_by(module, base)
        elif base.endswith("ForConditionalGeneration"):
            stated |= stated_by(imported[base], base)
    for each in classes[name].body:
        if isinstance(each, ast.Assign) and isinstance(each.value, ast.Constant):
            stated[ast.unparse(each.targets[0])] = each.value.value
    return stated


@pytest.mark.parametrize("family", families.FAMILIES)
def test_facts_are_of_the_installed_engine(family: str) -> None:
    version = installed_engine().version
    assert is_known(version, families.get(family).vllm_versions), f"read vLLM {version} before it is known"


def test_the_ranks_are_those_of_the_installed_engine() -> None:
    ranks = assigned(engine_source("config/lora.py").body, "MaxLoRARanks")
    assert isinstance(ranks, ast.Subscript)
    assert ast.literal_eval(ranks.slice) == LORA_RANKS


def test_every_key_that_the_installed_engine_reads_is_known_here() -> None:
    """What it reads and does not apply it only reads to refuse: a new key there is one to look at."""
    applied = {"r", "lora_alpha", "target_modules", "use_rslora", "rank_pattern", "alpha_pattern"}
    (helper,) = [
        each
        for each in engine_source("lora/peft_helper.py").body
        if isinstance(each, ast.ClassDef) and each.name == "PEFTHelper"
    ]
    read = {ast.unparse(each.target) for each in helper.body if isinstance(each, ast.AnnAssign)}
    assert {each for each in read if not each.startswith("vllm_")} <= applied | NOT_APPLIED.keys()


@pytest.mark.parametrize("family", families.FAMILIES)
def test_the_class_of_a_family_takes_what_is_stated(family: str) -> None:
    facts = families.get(family)
    stated = stated_by(*class_of(facts.vllm_architecture))
    assert stated.get("SupportsLoRA") or not facts.vllm_adapts
    needed = {option for option in facts.vllm_adapts.values() if option}
    known = {"enable_tower_connector_lora"} if stated.get("supports_tower_connector_lora") else set()
    assert needed <= known, "without it vLLM ignores the option, and a part of the adapter"
    assert bool(stated.get("supports_encoder_tp_data")) == facts.vllm_offers.encoder_data


@pytest.mark.parametrize(
    ("package", "offered"), [("tool_parsers", "tool_parser"), ("reasoning", "reasoning_parser")]
)
def test_the_parsers_are_there_by_their_names(package: str, offered: str) -> None:
    text = engine_source(f"{package}/__init__.py")
    names = {each.value for each in ast.walk(text) if isinstance(each, ast.Constant)}
    wanted = {getattr(family.vllm_offers, offered) for family in families.FAMILIES.values()}
    assert wanted - {""} <= names


@pytest.mark.parametrize(
    ("version", "known"),
    [
        ("0.32.0", True),
        ("0.32.7+cpu", True),
        ("0.33.0", True),
        ("0.34.0", False),
        ("0.3.2", False),
        ("1.32.0", False),
        ("0.320.0", False),
        ("a build of one's own", False),
    ],
)
def test_a_version_is_of_its_minor_release(version: str, known: bool) -> None:
    assert is_known(version, KNOWN) == known
