"""The dataset card: README.md as the Hugging Face hub reads it, YAML for programs above text for people.

`datasets.load_dataset(FOLDER, "rows")` and `"images"` open the dataset by it. The fields are those of the
hub's dataset card metadata; what is not known (the language of the texts, say) is left out, not guessed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from data_prep.split import SPLITS
from data_prep.statistics import measures
from data_prep.templates import render
from lensmith.dataset import Split, split_file
from lensmith.files import write_atomically
from lensmith.row_file import images_files

CARD = "README.md"
CARD_TEMPLATE = "data_card.md.j2"
_SPLITS: tuple[Split, ...] = ("train", "validation")
# The hub's size categories, each with the rows from which the next begins.
_SIZES = (
    (1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M"), (1_000_000_000, "100M<n<1B"),
    (10_000_000_000, "1B<n<10B"), (100_000_000_000, "10B<n<100B"), (1_000_000_000_000, "100B<n<1T"),
)  # fmt: skip
# SPDX names, in lower case, of licences that data is under and the hub has a name for.
_LICENCES = {
    "apache-2.0": "apache-2.0", "mit": "mit", "bsd-3-clause": "bsd-3-clause", "cc0-1.0": "cc0-1.0",
    "cc-by-2.0": "cc-by-2.0", "cc-by-3.0": "cc-by-3.0", "cc-by-4.0": "cc-by-4.0",
    "cc-by-sa-3.0": "cc-by-sa-3.0", "cc-by-sa-4.0": "cc-by-sa-4.0", "cc-by-nc-4.0": "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0": "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0": "cc-by-nc-nd-4.0",
    "cc-by-nd-4.0": "cc-by-nd-4.0", "odbl-1.0": "odbl", "odc-by-1.0": "odc-by", "pddl-1.0": "pddl",
    "cdla-permissive-1.0": "cdla-permissive-1.0", "cdla-permissive-2.0": "cdla-permissive-2.0",
    "cdla-sharing-1.0": "cdla-sharing-1.0", "unlicense": "unlicense",
}  # fmt: skip


def write_card(folder: Path, body: dict[str, Any]) -> None:
    """Write `README.md` from the body of a dataset artifact."""
    facts = {
        "body": body,
        "splits": SPLITS,
        "measures": measures(body),
        "origins": _origins(body["origins"]),
    }
    text = f"{_front_matter(folder, body)}{render(CARD_TEMPLATE, facts)}"
    write_atomically(folder / CARD, text.encode("utf-8", "backslashreplace"))


def _front_matter(folder: Path, body: dict[str, Any]) -> str:
    rows = sum(body["rows"][split] for split in _SPLITS)
    facts = {
        **_licence(body["origins"]),
        "task_categories": ["image-text-to-text"],
        "size_categories": [next((name for end, name in _SIZES if rows < end), "n>1T")],
        "tags": ["image", "text", "lensmith"],
        "configs": [
            {"config_name": "rows", "default": True, "data_files": _files(folder, lambda path: [path])},
            {"config_name": "images", "data_files": _files(folder, images_files)},
        ],
    }
    return f"---\n{yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)}---\n\n"


def _files(folder: Path, which: Callable[[Path], list[Path]]) -> list[dict[str, str | list[str]]]:
    """Each by its name: in the order of a pattern the places of images would be others."""
    files: list[dict[str, str | list[str]]] = []
    for split in _SPLITS:
        paths = [path.relative_to(folder).as_posix() for path in which(folder / split_file(split))]
        files.append({"split": split, "path": paths[0] if len(paths) == 1 else paths})
    return files


def _licence(origins: dict[str, Any]) -> dict[str, Any]:
    """The hub's `license`: only where every row states one, and all that are stated are listed."""
    counted = origins["licence"]
    stated = [text for text, _ in counted["values"]]
    if not stated or counted["others"] or counted["rows"] < origins["rows"]:
        return {}
    known = [_LICENCES.get(text.lower()) for text in stated]
    if None in known:
        return {"license": "other", "license_name": "see-below"}
    return {"license": known[0] if len(known) == 1 else sorted({each for each in known if each})}


def _origins(origins: dict[str, Any]) -> list[tuple[str, list[tuple[str, int]], int]]:
    """What is stated, the texts with their rows, and the rows that say something else or nothing."""
    found: list[tuple[str, list[tuple[str, int]], int]] = []
    for key in ("licence", "consent", "source"):
        stated = [(text, rows) for text, rows in origins[key]["values"]]
        found.append((key, stated, origins["rows"] - sum(rows for _, rows in stated)))
    return found
