"""Write labelled.jsonl: texts, and whether they hold the kind of instruction. The same bytes every time.

python -m tests.data_prep.instructions.make_labelled
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from tests.data_prep.personal.make_labelled import HANDWRITTEN as PERSONAL

HERE = Path(__file__).parent
LABELLED = HERE / "labelled.jsonl"
# By kind: texts that speak to a model, and texts that only look so.
HANDWRITTEN = json.loads((HERE / "handwritten.json").read_text(encoding="utf-8"))


def labelled() -> Iterator[dict[str, object]]:
    """Every text; `spans` is [""] where it holds its kind: the exact stretch is not labelled."""
    for kind, texts in HANDWRITTEN.items():
        for text in texts["holds"]:
            yield {"kind": kind, "text": text, "spans": [""]}
        for text in texts["looks so"]:
            yield {"kind": kind, "text": text, "spans": []}
    for text in PERSONAL["nobody"]:
        yield {"kind": "*", "text": text, "spans": []}


def main() -> None:
    """Write the file."""
    lines = [json.dumps(each, ensure_ascii=False) for each in labelled()]
    LABELLED.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main()
