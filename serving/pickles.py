"""Finding pickles: files that run code when they are opened have no place in a release."""

from __future__ import annotations

import zipfile
from pathlib import Path

from lensmith.artifact import walk_files
from lensmith.errors import Problem

# Names that loaders open with pickle, whatever is inside.
SUFFIXES = frozenset({".bin", ".ckpt", ".dill", ".joblib", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pth"})
# PROTO opcode with protocol 2 to 5, as every pickle since Python 2.3 begins (PEP 307, PEP 3154, PEP 574).
_PICKLES = tuple(bytes((0x80, protocol)) for protocol in (2, 3, 4, 5))
_ZIP = b"PK\x03\x04"
_MEND = "keep weights in safetensors and settings in JSON"


def find_pickles(root: Path) -> list[Problem]:
    """A problem for every file of the artifact at `root` that is, or is named like, a pickle."""
    problems: list[Problem] = []
    for path in walk_files(root):
        if path.suffix.lower() in SUFFIXES:
            problems.append(Problem("has the name of a pickle", str(path), _MEND))
        elif _is_pickle(path):
            problems.append(Problem("is a pickle under another name", str(path), _MEND))
    return problems


def _is_pickle(path: Path) -> bool:
    with path.open("rb") as stream:
        head = stream.read(9)
    if head.startswith(_ZIP) and zipfile.is_zipfile(path):
        # torch.save writes a zip with the pickle inside.
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(".pkl") for name in archive.namelist())
    # A safetensors file begins with its header's length, 8 bytes that may spell the same two.
    is_safetensors = path.suffix == ".safetensors" and head[8:9] == b"{"
    return head.startswith(_PICKLES) and not is_safetensors
