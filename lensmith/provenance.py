"""What a stage's key is made of: the code that runs, the packages it runs on, what was asked."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from lensmith.files import digest_json

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("lensmith", "data_prep", "finetune", "serving")


# One statement a line, as `ruff format` writes them; the tests compare it with Python's parser on every file.
_IMPORT = re.compile(r"^ *(?:from (\.*)([\w.]*) import (\([^)]*\)|.*)|import (.*))$", re.MULTILINE)
_COMMENT = re.compile(r"#.*")


def _source(module: str) -> Path | None:
    base = ROOT.joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def imports(module: str, is_package: bool, source: str) -> set[str]:
    """Every module of ours that `module`, whose text is `source`, imports, and what may be one; parents of
    packages included.

    Looks at the text alone: the parser takes 2 ms a file, and a stage has two hundred.
    """
    names = {module}
    package = module if is_package else module.rpartition(".")[0]
    for dots, parent, listed, plain in _IMPORT.findall(source):
        parts = _COMMENT.sub("", listed or plain).strip("()").split(",")
        taken = [each.split()[0] for each in parts if each.strip()]
        if plain:
            names.update(taken)
            continue
        above = package.split(".")[: len(package.split(".")) - len(dots) + 1] if dots else []
        origin = ".".join([*above, *filter(None, [parent])])
        names.add(origin)
        names.update(f"{origin}.{each}" for each in taken)
    split = [name.split(".") for name in names if name.split(".")[0] in PACKAGES]
    # Importing a.b.c runs a and a.b too.
    return {".".join(each[:depth]) for each in split for depth in range(1, len(each) + 1)}


@functools.cache
def code_digest(module: str) -> str:
    """SHA-256 over the source of `module` and of every module of ours that it imports, however deep.

    The command line's own files are left out: how a stage is asked for does not change what it makes.
    """
    found: dict[str, bytes] = {}
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen or name.startswith("lensmith.cli"):
            continue
        seen.add(name)
        path = _source(name)
        if path is not None:
            content = path.read_bytes()
            found[name] = hashlib.sha256(content).digest()
            waiting.extend(imports(name, path.name == "__init__.py", content.decode()))
    state = hashlib.sha256()
    for name in sorted(found):
        state.update(f"{name}\n".encode())
        state.update(found[name])
    return state.hexdigest()


def package_versions(names: tuple[str, ...]) -> dict[str, str]:
    """The installed version of each distribution, "absent" where there is none."""
    versions: dict[str, str] = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "absent"
    return versions


def stage_key(
    stage: str, module: str, packages: tuple[str, ...], asked: Mapping[str, Any], inputs: Mapping[str, str]
) -> str:
    """The digest of what is asked of a stage.

    `module` is the stage's program, `asked` the part of the resolved recipe it reads (JSON values),
    `inputs` the id of each input artifact by role.
    """
    return digest_json(
        {
            "stage": stage,
            "code": code_digest(module),
            "packages": package_versions(packages),
            "asked": dict(asked),
            "inputs": dict(inputs),
        }
    )
