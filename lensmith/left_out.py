"""Optional packages that libraries import wherever they are installed, left out where nothing uses them.

transformers imports scikit-learn for a kind of decoding, PEFT bitsandbytes (and with it torch's compiler),
TRL wandb: of the 10 CPU seconds that a training process imports for, these are 4.
"""

from __future__ import annotations

import sys

# For transformers' assisted decoding alone.
UNUSED = "sklearn"
IN_FOUR_BITS = "bitsandbytes"
TRACKER = "wandb"


def leave_out(*names: str) -> None:
    """Let this process go on as if the packages `names` were not installed.

    For a program's first lines: who asks before it imports (as optional packages are asked for) is told no,
    who imports gets ModuleNotFoundError. One that was imported already stays: its time is spent.
    """
    for name in names:
        # None is what the import system takes for "known not to be there".
        sys.modules.setdefault(name, None)  # pyright: ignore[reportArgumentType, reportCallIssue]
