"""scripts/train.py of which the second process fails before it has joined the other: what its test starts."""

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import train


def failing(*_: object) -> None:
    """As one machine cannot read what another can, and as gloo then tells the other process."""
    if os.environ["RANK"] == "1":
        raise OSError("Stale file handle (os error 116)")
    time.sleep(2)
    raise RuntimeError("Connection closed by peer")


if __name__ == "__main__":
    train.train = failing
    sys.exit(train.main())
