"""Keys: they follow the code that runs, the packages, what was asked and the inputs; nothing else."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lensmith import provenance
from lensmith.provenance import PACKAGES, code_digest, imports, package_versions, stage_key

FILES = {
    "finetune/__init__.py": "",
    "finetune/train.py": "from finetune.steps import step\nfrom lensmith import recipe\n",
    "finetune/steps/__init__.py": "from .one import step\n",
    "finetune/steps/one.py": "def step():\n    import lensmith.deep.far\n",
    "finetune/merge.py": "",
    "lensmith/__init__.py": "",
    "lensmith/recipe.py": "",
    "lensmith/home.py": "",
    "lensmith/deep/__init__.py": "",
    "lensmith/deep/far.py": "from lensmith.cli import main\n",
    "lensmith/cli/__init__.py": "",
    "lensmith/cli/main.py": "",
}


@pytest.fixture
def digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """The code digest of finetune.train in a small tree of our packages, read anew at each call."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(provenance, "ROOT", tmp_path)

    def read() -> str:
        code_digest.cache_clear()
        return code_digest("finetune.train")

    yield read
    code_digest.cache_clear()


@pytest.mark.parametrize(
    "name",
    [
        "finetune/train.py",
        "finetune/__init__.py",
        "finetune/steps/__init__.py",
        "finetune/steps/one.py",
        "lensmith/recipe.py",
        "lensmith/deep/__init__.py",
        "lensmith/deep/far.py",
    ],
)
def test_a_change_in_what_is_imported_however_deep_changes_the_digest(
    digest: Callable[[], str], tmp_path: Path, name: str
) -> None:
    before = digest()
    with (tmp_path / name).open("a") as file:
        file.write("CHANGED = True\n")
    assert digest() != before


@pytest.mark.parametrize("name", ["finetune/merge.py", "lensmith/home.py", "lensmith/cli/main.py"])
def test_a_change_elsewhere_or_in_the_command_line_does_not(
    digest: Callable[[], str], tmp_path: Path, name: str
) -> None:
    before = digest()
    (tmp_path / name).write_text("CHANGED = True\n")
    assert digest() == before


def test_the_place_of_the_tree_does_not_matter(
    digest: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = digest()
    moved = tmp_path.with_name(f"{tmp_path.name}_moved")
    tmp_path.rename(moved)
    monkeypatch.setattr(provenance, "ROOT", moved)
    assert digest() == before


def parsed_imports(package: str, source: str) -> set[str]:
    """What Python's own parser finds imported in a file of `package`."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            above = parts[: len(parts) - node.level + 1] if node.level else []
            origin = ".".join([*above, *filter(None, [node.module])])
            names.update([origin, *(f"{origin}.{alias.name}" for alias in node.names)])
    return {name for name in names if name.split(".")[0] in PACKAGES}


@pytest.mark.slow
def test_every_import_of_every_file_is_found() -> None:
    for path in (path for package in PACKAGES for path in (provenance.ROOT / package).rglob("*.py")):
        parts = path.relative_to(provenance.ROOT).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        package = name if is_package else name.rpartition(".")[0]
        source = path.read_text()
        wanted = {name, *parsed_imports(package, source)}
        parents = {each.rsplit(".", up)[0] for each in wanted for up in range(each.count(".") + 1)}
        assert imports(name, is_package, source) == wanted | parents, path


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("import lensmith.files as files, json", {"lensmith.files"}),
        ("    from lensmith.files import (  # all\n    a,  # one\n    b as c,\n)", {"lensmith.files.b"}),
        ("from ..deep import far  # why", {"data_prep.deep.far"}),
        ("from . import near", {"data_prep.sources.near"}),
    ],
)
def test_imports_as_they_are_written(line: str, found: set[str]) -> None:
    assert found <= imports("data_prep.sources.pdf", is_package=False, source=f"x = 1\n{line}\ny = 2\n")


def test_versions_of_what_is_there_and_what_is_not() -> None:
    versions = package_versions(("pydantic", "no-such-distribution"))
    assert versions["pydantic"][0].isdigit()
    assert versions["no-such-distribution"] == "absent"


def test_every_part_of_the_key_counts() -> None:
    def key(
        stage: str = "merge",
        module: str = "lensmith.tokens",
        packages: tuple[str, ...] = ("pydantic",),
        asked: tuple[tuple[str, object], ...] = (("rank", 8), ("dtype", "float32")),
        base: str = "a",
    ) -> str:
        return stage_key(stage, module, packages, dict(asked), {"base": base})

    others = [
        key(stage="train"),
        key(module="lensmith.images"),
        key(packages=("pyyaml",)),
        key(asked=(("rank", 16), ("dtype", "float32"))),
        key(base="b"),
    ]
    assert len({key(), *others}) == len(others) + 1
    assert key(asked=(("dtype", "float32"), ("rank", 8))) == key()
