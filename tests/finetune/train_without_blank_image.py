"""scripts/train.py as it would be without blank images: what the test of them starts."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import train

import finetune.train
from finetune.ending import leave
from lensmith.large_imports import QuickExit

LOADED = "the model is loaded, and sees no blank image"


def never(*_: object) -> bool:
    """No batch needs a blank image. Asked when the model is loaded: what follows are its steps."""
    print(LOADED, flush=True)
    return False


if __name__ == "__main__":
    finetune.train.needs_blank_image = never
    leave(QuickExit(), train.main())
