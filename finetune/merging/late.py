"""torch, imported when something of it is first used.

What a merge has to do is told by headers: to plan it takes no torch. So what stays as it is can be copied
while torch is imported, which takes a core a second.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch as torch
else:

    class _Late:
        def __getattr__(self, name):
            return getattr(importlib.import_module("torch"), name)

    torch = _Late()
