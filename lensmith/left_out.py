"""Optional packages that libraries import wherever they are installed, left out where nothing uses them.

transformers imports scikit-learn for a kind of decoding and SciPy for the losses of object detection, PEFT
bitsandbytes (and with it torch's compiler), TRL wandb: of the 10 CPU seconds that a training process imports
for, these are 5. Each of vLLM's two processes is spared 1.5 of 9 by SciPy, which it has for sound.
"""

from __future__ import annotations

import sys

# Of transformers and vLLM, for assisted decoding, detection and sound alone.
UNUSED = ("sklearn", "scipy")
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
