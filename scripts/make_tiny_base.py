"""Make the demo's base model: a tiny Qwen3-VL that reads printed bank forms, but not handwriting.

python scripts/make_tiny_base.py OUT [--seed 7] [--untaught]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tiny_base.checkpoint import DEMO, SMALLEST, Size, write_untaught

__all__ = ["DEMO", "SMALLEST", "Size", "write_untaught"]


def main() -> None:
    """Parse the command line and write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    write_untaught(arguments.out, DEMO, arguments.seed)


if __name__ == "__main__":
    main()
