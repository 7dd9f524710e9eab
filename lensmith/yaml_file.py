"""Reading YAML that people write: duplicate keys and aliases refused, the line of every key kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lensmith.errors import InputError, Problem

_PLAIN_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


@dataclass(frozen=True)
class YamlFile:
    """A parsed mapping and, for each dotted key, the line (from 1) it stands on."""

    content: dict[str, Any]
    lines: dict[str, int]


def read_yaml(path: Path) -> YamlFile:
    """Parse the mapping in `path`. Raises InputError with every problem found, each with its line."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise InputError(f"no such file: {path}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    return parse_yaml(text, path)


def parse_yaml(text: str, path: Path) -> YamlFile:
    """Parse the mapping that `text`, of the file `path`, holds. Raises InputError as `read_yaml`."""
    problems: list[Problem] = []
    try:
        for event in yaml.parse(text, yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                # Nested aliases grow without bound ("billion laughs"); a recipe needs none.
                line = event.start_mark.line + 1 if event.start_mark else 0
                problems.append(Problem("aliases are not allowed", f"{path}:{line}", "write the value out"))
        if problems:
            raise InputError(f"{path} cannot be used", problems)
        node = yaml.compose(text, yaml.SafeLoader)
        loader = yaml.SafeLoader("")
        lines: dict[str, int] = {}
        content = _build(node, "", path, loader, lines, problems) if node is not None else {}
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    except ValueError as error:
        # PyYAML lets its scalar constructors' own errors out, as for the date 2026-13-01.
        raise InputError(f"{path} holds a value that is not what it looks like: {error}") from error
    except RecursionError as error:
        raise InputError(f"{path} is nested too deeply") from error
    if not isinstance(content, dict):
        problems.append(Problem("keys with values are expected at the top", f"{path}:1"))
    if problems:
        raise InputError(f"{path} cannot be used", problems)
    return YamlFile(content, lines)


def parse_scalar(text: str) -> Any:
    """One value as YAML reads it; for values given on the command line. Raises ValueError for no YAML."""
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(" ".join(str(error).split())) from error


def _build(
    node: yaml.Node,
    prefix: str,
    path: Path,
    loader: yaml.SafeLoader,
    lines: dict[str, int],
    problems: list[Problem],
) -> Any:
    if isinstance(node, yaml.CollectionNode) and node.tag not in _PLAIN_TAGS:
        where = f"{path}:{node.start_mark.line + 1} {prefix}"
        problems.append(Problem(f"the tag {node.tag} is not allowed", where, "write plain keys and values"))
        return None
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(loader.construct_object(key_node))
            dotted = f"{prefix}.{key}" if prefix else key
            line = key_node.start_mark.line + 1
            if key in result:
                where = f"{path}:{line} {dotted}"
                problems.append(Problem("is given twice", where, f"the first is on line {lines[dotted]}"))
            lines.setdefault(dotted, line)
            result[key] = _build(value_node, dotted, path, loader, lines, problems)
        return result
    if isinstance(node, yaml.SequenceNode):
        return [
            _build(item, f"{prefix}.{index}", path, loader, lines, problems)
            for index, item in enumerate(node.value)
        ]
    return loader.construct_object(node)
