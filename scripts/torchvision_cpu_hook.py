"""Let a CUDA build of torchvision import beside a CPU build of torch.

Bootstrap copies this file into the environment, with a `.pth` that imports it, when a plain
`import torchvision` fails with "operator torchvision::nms does not exist". vLLM and accelerate start
processes of their own, so the mend has to happen in every interpreter, before the first import of
torchvision and never otherwise: importing torch at start-up would cost every command seconds.
"""

from __future__ import annotations

import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)

# A torch Library unregisters its operators when it is collected, so it lives as long as the process.
_held: list[object] = []


class DefineOperatorsFirst:
    """A meta-path finder that runs once, just before torchvision is found by the usual finders."""

    @classmethod
    def find_spec(
        cls, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name == "torchvision":
            sys.meta_path.remove(cls)
            import torch

            # FRAGMENT: a second DEF of the same namespace in one process raises.
            library = torch.library.Library("torchvision", "FRAGMENT")
            for schema in SCHEMAS:
                library.define(schema)
            _held.append(library)
        return None


sys.meta_path.insert(0, DefineOperatorsFirst)
