"""Write docs/reference/ from the code: the recipe's keys from its schema, the verbs from their parsers, the
reasons from data preparation.

python scripts/write_reference.py [--out docs/reference]

A test holds the committed files to what this writes.
"""

from __future__ import annotations

import argparse
import os
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from family_matrix import families_reference
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from data_prep.flag import FLAG_TITLES
from data_prep.reasons import FLAGGED, REFUSED, Reason
from data_prep.refusal import TITLES
from lensmith.cli.main import VERBS, overview, verb_module, verb_parser
from lensmith.recipe import PATHS, known_keys, section_at

ROOT = Path(__file__).resolve().parent.parent
# argparse breaks lines at the terminal's width; the files must not depend on it.
WIDTH = "100"
# A bar within a cell of a table.
_BAR = "\\|"
_NAMES = {int: "integer", float: "number", str: "text", bool: "true or false", Path: "path"}


def recipe_reference() -> str:
    """docs/reference/recipe.md."""
    lines = [
        "# Recipe",
        "",
        "Every key of a recipe, written by `scripts/write_reference.py` from its schema.",
        "Unknown keys are errors. A key without a default must be given.",
        f"Paths ({', '.join(f'`{each}`' for each in PATHS)}) are relative to the recipe file;"
        " given with `-s` they are relative to the current directory.",
        "",
        *_section(""),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _section(dotted: str) -> list[str]:
    section = section_at(dotted)
    assert section is not None
    about = (section.__doc__ or "").strip()
    lines = [f"## {f'`{dotted}`' if dotted else 'Top'}", "", about, ""] if dotted else []
    lines += ["| key | value | default | what it says |", "|---|---|---|---|"]
    below: list[str] = []
    for key in known_keys(dotted):
        full = f"{dotted}.{key}" if dotted else key
        field = section.model_fields[key]
        nested = section_at(full) is not None
        value = f"[section](#{full.replace('.', '')})" if nested else value_text(field)
        lines.append(f"| `{key}` | {value} | {default_text(field)} | {field.description} |")
        below += _section(full) if nested else []
    return [*lines, "", *below]


def value_text(field: FieldInfo) -> str:
    """What may stand there: the choices, or the kind of value with its bounds."""
    return _kind_text(field.annotation, field.metadata)


def _kind_text(kind: Any, constraints: Sequence[object] = ()) -> str:
    if get_origin(kind) is Annotated:
        kind, *annotations = get_args(kind)
        inner = [bound for each in annotations if isinstance(each, FieldInfo) for bound in each.metadata]
        return _kind_text(kind, [*constraints, *inner])
    if get_origin(kind) in (Union, types.UnionType):
        choices = [_kind_text(each, constraints) for each in get_args(kind) if each is not type(None)]
        return ", or ".join(dict.fromkeys(choices))
    if get_origin(kind) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(kind))
    if get_origin(kind) in (list, tuple):
        return f"list: {_kind_text(get_args(kind)[0])}"
    if get_origin(kind) is dict:
        return "mapping"
    bounds = [text for each in constraints if (text := _bound(each))]
    return f"{_NAMES[kind]} {', '.join(bounds)}".strip()


def _bound(constraint: object) -> str:
    match constraint:
        case Ge():
            return f"≥ {constraint.ge}"
        case Gt():
            return f"> {constraint.gt}"
        case Le():
            return f"≤ {constraint.le}"
        case Lt():
            return f"< {constraint.lt}"
    return ""


def default_text(field: FieldInfo) -> str:
    """The default as YAML has it, empty where the key must be given."""
    if field.is_required():
        return ""
    default = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(default, BaseModel):
        return "its defaults"
    if default is None:
        return "absent"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if default in ("", [], {}, ()):
        return "empty"
    if isinstance(default, tuple):
        return ", ".join(f"`{each}`" for each in default)
    return f"`{default}`"


def cli_reference() -> str:
    """docs/reference/cli.md."""
    os.environ.update(COLUMNS=WIDTH, NO_COLOR="1")
    lines = [
        "# Command line",
        "",
        "Written by `scripts/write_reference.py` from the parsers.",
        "",
        "```text",
        overview(),
        "```",
    ]
    for verb in VERBS:
        parser = verb_parser(verb, verb_module(verb))
        lines += ["", f"## lensmith {verb}", "", "```text", parser.format_help().rstrip(), "```"]
    return "\n".join(lines) + "\n"


def reasons_reference() -> str:
    """docs/reference/reasons.md."""
    lines = [
        "# Why rows are refused or flagged",
        "",
        "Written by `scripts/write_reference.py` from `data_prep/reasons.py`. The code is what `refused.csv`",
        "and `flagged.csv` say; the report shows the title, what it is in each row, and the mend.",
    ]
    parts: list[tuple[str, Mapping[Any, str], Mapping[Any, Reason]]] = [
        ("Refused: the row is not used until it is mended", TITLES, REFUSED),
        ("Flagged: the row is used; somebody should look at it", FLAG_TITLES, FLAGGED),
    ]
    for title, titles, reasons in parts:
        lines += ["", f"## {title}", "", "| code | title | what it means | what to do |", "|---|---|---|---|"]
        for code, said in titles.items():
            cells = [said, *reasons[code]]
            lines.append(f"| `{code}` | {' | '.join(cell.replace('|', _BAR) for cell in cells)} |")
    return "\n".join(lines) + "\n"


REFERENCES: dict[str, Callable[[], str]] = {
    "recipe.md": recipe_reference,
    "cli.md": cli_reference,
    "reasons.md": reasons_reference,
    "families.md": families_reference,
}


def main() -> None:
    """Write every reference."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "docs/reference")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for name, text in REFERENCES.items():
        (out / name).write_text(text())
        print(out / name)


if __name__ == "__main__":
    main()
