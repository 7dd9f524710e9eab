"""Prepare, and die just before the N-th rename: python -m tests.data_prep.killed RECIPE HOME N."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from data_prep.prepare import prepare
from lensmith.home import Home
from lensmith.recipe import load_recipe

STATUS = 77


def main() -> None:
    """Replace the two ways a file is renamed, then prepare."""
    recipe, home, last = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    seen = 0

    def count() -> None:
        nonlocal seen
        seen += 1
        if seen == last:
            os._exit(STATUS)

    rename, replace = Path.rename, Path.replace

    def dying_rename(self: Path, target: Path) -> Path:
        count()
        return rename(self, target)

    def dying_replace(self: Path, target: Path) -> Path:
        count()
        return replace(self, target)

    Path.rename, Path.replace = dying_rename, dying_replace
    prepare(load_recipe(recipe), Home(home))


if __name__ == "__main__":
    main()
