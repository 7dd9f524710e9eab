"""Optional packages that libraries import wherever they are installed, left out where nothing uses them.

transformers imports scikit-learn for a kind of decoding, PEFT bitsandbytes (and with it torch's compiler),
TRL wandb: of the 10 CPU seconds that a training process imports for, these are 4.
"""

from __future__ import annotations

import importlib.util
import sys

# For transformers' assisted decoding alone.
UNUSED = "sklearn"
IN_FOUR_BITS = "bitsandbytes"
TRACKER = "wandb"


def leave_out(*names: str) -> None:
    """Let this process go on as if the packages `names` were not installed.

    For a program's first lines: who asks before it imports (as optional packages are asked for) is told no,
    who imports gets ModuleNotFoundError. Raises RuntimeError for one that was imported already.
    """
    for name in names:
        if sys.modules.get(name) is not None:
            raise RuntimeError(f"{name} was imported before it could be left out")
        # What the import system takes for "known not to be there"; find_spec answers None.
        sys.modules[name] = None  # pyright: ignore[reportArgumentType]
        assert importlib.util.find_spec(name) is None
