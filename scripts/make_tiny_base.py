"""Make the demo's base model: a tiny Qwen3-VL that reads printed bank forms, but not handwriting.

    python scripts/make_tiny_base.py OUT [--seed 7]

OUT becomes an ordinary checkpoint directory that any Qwen3-VL tool opens; its teaching.json tells how it was
made. Same seed, same machine: same bytes. Two to three minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from tiny_base.checkpoint import (
    DEMO,
    SMALLEST,
    Size,
    make_config,
    make_model,
    make_processor,
    save,
    write_untaught,
)
from tiny_base.teaching import Course, teach

__all__ = ["Course", "DEMO", "SMALLEST", "Size", "make_tiny_base", "teach", "write_untaught"]


def make_tiny_base(out: Path, seed: int, size: Size = DEMO, course: Course | None = None) -> None:
    """Write a taught checkpoint to the new directory `out`, beside it first and renamed at the end.

    Raises FileExistsError where `out` exists.
    """
    if out.exists():
        raise FileExistsError(f"{out} is already there: remove it or name another directory")
    course = course or Course()
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    processor = make_processor()
    model = make_model(make_config(size, processor), seed)
    taught = teach(model, processor, seed, course, lambda line: print(line, file=sys.stderr, flush=True))
    save(partial, model, processor)
    record = {
        "seed": seed,
        "size": asdict(size),
        "course": asdict(course),
        "taught": asdict(taught),
        "versions": {name: version(name) for name in ("torch", "transformers", "tokenizers", "pillow")},
    }
    (partial / "teaching.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    partial.rename(out)


def main() -> None:
    """Parse the command line and make the base."""
    parser = argparse.ArgumentParser(description="Make a tiny Qwen3-VL that reads printed bank forms.")
    parser.add_argument("out", type=Path, help="the checkpoint directory to write; it must not exist")
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    try:
        make_tiny_base(arguments.out, arguments.seed)
    except FileExistsError as error:
        sys.exit(f"make_tiny_base: {error}")


if __name__ == "__main__":
    main()
