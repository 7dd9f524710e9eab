"""Prepare, and die at the N-th fetched picture: python -m tests.data_prep.killed_fetching RECIPE HOME N."""

from __future__ import annotations

import ipaddress
import os
import signal
import sys
from pathlib import Path

from data_prep.prepare import prepare
from data_prep.sources import fetched
from lensmith.home import Home
from lensmith.recipe import load_recipe


def main() -> None:
    """Count the files that take their final name, then prepare."""
    recipe, home, last = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    fetched.INSIDE = (ipaddress.ip_network("127.0.0.1/32"),)
    seen = 0
    replace = Path.replace

    def counted(self: Path, target: Path) -> Path:
        nonlocal seen
        found = replace(self, target)
        seen += "downloads" in Path(target).parts
        if seen >= last:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    Path.replace = counted
    prepare(load_recipe(recipe), Home(home))


if __name__ == "__main__":
    main()
