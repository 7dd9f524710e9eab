"""Every recipe that ships loads, names its commit and hardware, plans, and fits the GPUs in its name."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from finetune.gpus import Gpu, parse_gpus
from finetune.memory import Memory
from finetune.plan import plan
from lensmith import families
from lensmith.artifact import Artifact
from lensmith.cli.main import main
from lensmith.downloaded import COMMIT, TO_CHOOSE
from lensmith.gpus import KINDS
from lensmith.home import Home
from lensmith.recipe import Recipe, load_recipe
from lensmith.train_settings import Train
from lensmith.units import GIB
from tests.conftest import ROOT
from tests.published import PUBLISHED, write_pages, write_published

RECIPES = sorted((ROOT / "recipes/bank_forms").glob("*.yaml"))
# <family and size>_<method>_<GPUs>x<GPU>.yaml
_HARDWARE = re.compile(r"_(lora|full)_(\d+)x(l4|h100|h200)$")
# The demo's base is made, and runs anywhere.
ON_GPUS = [path for path in RECIPES if path.stem != "qwen3_vl_tiny_lora"]
each = pytest.mark.parametrize("path", ON_GPUS, ids=lambda path: path.stem)
GPU_PAGE = (ROOT / "docs/gpu.md").read_text()

SIZES = {
    "qwen3_vl": ["2b", "4b", "8b", "32b"],
    "qwen3_vl_moe": ["30b_a3b", "235b_a22b"],
    "glm4v": ["flash"],
    "glm4v_moe": ["glm46v"],
    "gemma3": ["4b", "12b", "27b"],
    "deepseek_ocr2": ["ocr2"],
    "molmo2": ["4b", "8b"],
}


def complaints(text: str, stem: str, recipe: Recipe) -> list[str]:
    """What a recipe's name and first lines say otherwise than its settings."""
    from finetune.launcher import method_problems, read_launcher

    launcher = read_launcher(recipe.train.launcher)
    found = [str(problem) for problem in method_problems(launcher, recipe)]
    named = _HARDWARE.search(stem)
    if named is None:
        return [f"{stem} names no method and hardware"]
    if named[1] != recipe.train.method:
        found.append(f"named {named[1]}, trains {recipe.train.method}")
    if int(named[2]) != launcher.processes:
        found.append(f"named {named[2]} GPUs, its launcher starts {launcher.processes} processes")
    if recipe.serve.tensor_parallel > launcher.processes:
        found.append(f"serves on {recipe.serve.tensor_parallel} GPUs, there are {named[2]}")
    told = re.search(r"hf download \S+/(\S+) --revision (\S+) \\\n# +--local-dir models/(\S+)", text)
    if told is None:
        return [*found, "does not say how its base is downloaded"]
    if {told[1], told[3]} != {recipe.base.path.name}:
        found.append(f"downloads {told[1]} into {told[3]}, base.path is {recipe.base.path.name}")
    pinned = bool(COMMIT.fullmatch(recipe.base.revision))
    if pinned and told[2] != recipe.base.revision:
        found.append(f"downloads commit {told[2]}, base.revision is another")
    if not pinned and (told[2], recipe.base.revision) != (TO_CHOOSE, TO_CHOOSE):
        found.append("names no commit, and does not ask for one")
    return found


@each
def test_a_recipe_is_what_its_name_and_first_lines_say(path: Path) -> None:
    recipe = load_recipe(path)
    assert complaints(path.read_text(), path.stem, recipe) == []
    assert all(len(line) <= 110 for line in path.read_text().splitlines())


def test_every_family_and_size_has_one() -> None:
    assert SIZES.keys() == families.FAMILIES.keys()
    made = {(load_recipe(path).family, path.stem) for path in ON_GPUS}
    for family, sizes in SIZES.items():
        for size in sizes:
            assert [stem for name, stem in made if name == family and f"{size}_lora" in stem], (family, size)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("method: lora", "method: lora", "full"),
        ("deepspeed_zero3.yaml", "one_gpu.yaml", "named 8 GPUs"),
        ("tensor_parallel: 2", "tensor_parallel: 16", "serves on 16"),
        ("--local-dir models/Q", "--local-dir models/X", "downloads Qwen3"),
        ("--revision 0c", "--revision 0d", "base.revision is another"),
        ("  revision: 0cfaf48183f594c314753d30a4c4974bc75f3ccb", '  revision: ""', "names no commit"),
        ("# ", "", "does not say how"),
    ],
)
def test_a_recipe_that_says_otherwise_is_seen(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    """Each fault planted into a recipe that has none."""
    source = ROOT / "recipes/bank_forms/qwen3_vl_32b_lora_8xh100.yaml"
    text = source.read_text()
    assert old in text
    content = yaml.safe_load(text.replace(old, new) if old != "# " else text)
    for section, key in (("train", "launcher"), ("base", "path")):
        content[section][key] = str((source.parent / content[section][key]).resolve())
    content["gates"] = str(ROOT / "recipes/gates/default.yaml")
    content["data"]["source"] = str(ROOT / "labels.jsonl")
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    stem = source.stem.replace("lora", "full") if complaint == "full" else source.stem
    found = complaints(text.replace(old, new), stem, load_recipe(path))
    assert [told for told in found if complaint in told]


def gpu_of(stem: str) -> Gpu:
    """The GPU in a recipe's name, of which there is one kind each."""
    kind = stem.rpartition("_")[2].partition("x")[2]
    (name,) = [name for name in KINDS if name.startswith(f"{kind}-")]
    (gpu,) = parse_gpus([name])
    return gpu


def shortage(memory: Memory, gpu: Gpu) -> int:
    """Bytes that the GPU lacks, what is kept free on it included."""
    return max(0, memory.needed - gpu.memory)


def line_of(path: Path, train: Train, memory: Memory, gpu: Gpu) -> str:
    """A recipe's line in docs/gpu.md."""

    def gib(size: int) -> str:
        return f"{size / GIB:.1f}"

    again = {0: "no", 1: "every block"}.get(train.recomputed, f"one of {train.recomputed} blocks")
    rows = f"packs of {train.pack_length:,}" if train.pack_length else f"{train.batch_size} rows"
    parts = ", ".join(map(gib, (memory.weights, memory.optimizer, memory.activations)))
    return f"| `{path.name}` | {rows} | {again} | {gib(memory.needed)} | {gib(gpu.memory)} | {parts} |"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """As many rows as an optimizer step of each recipe has, twice."""
    return write_pages(Home(tmp_path_factory.mktemp("pages")), 32)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A published model without its weights, by its name."""
    root = tmp_path_factory.mktemp("published")
    return functools.cache(lambda name: write_published(name, root / name))


@pytest.mark.slow
@each
def test_a_recipe_fits_the_gpus_in_its_name(
    path: Path, published: Callable[[str], Path], pages: Artifact
) -> None:
    """On the published model, from its shapes: a scanned page a row."""
    name = load_recipe(path).base.path.name
    recipe = load_recipe(path, [f"base.path={published(name)}"])
    planned = plan(recipe, pages)
    assert planned.parameters == PUBLISHED[name].parameters
    trained = {tower for tower, count in planned.trained_parameters.items() if count}
    assert trained == set(recipe.train.towers.in_mode("adapt" if recipe.train.adapts else "train"))
    assert planned.launcher.processes == int(path.stem.rpartition("_")[2].partition("x")[0])
    gpu = gpu_of(path.stem)
    less = dataclasses.replace(gpu, memory=gpu.memory * 9 // 10)
    assert shortage(planned.memory, less) == 0, f"{planned.memory} of {gpu}"
    assert line_of(path, recipe.train, planned.memory, gpu) in GPU_PAGE.splitlines()


def test_docs_tell_of_no_other_recipe() -> None:
    told = re.findall(r"^\| `(\w+)\.yaml` \| (?:packs|\d+ rows)", GPU_PAGE, re.MULTILINE)
    assert told == [path.stem for path in ON_GPUS]


def test_a_gpu_that_is_too_small_is_seen() -> None:
    gpu = gpu_of("qwen3_vl_8b_lora_1xh100")
    assert (gpu.name, gpu_of("a_1xl4").name, gpu_of("a_8xh200").name) == ("h100-80", "l4-24", "h200-141")
    memory = Memory(gpu.memory - 6 * GIB, 0, 0, 0, 0, 0, 0, 0, 0)
    assert shortage(memory, gpu) == 0
    # It fits, and what is kept free on it does not.
    assert shortage(dataclasses.replace(memory, weights=gpu.memory - 4 * GIB), gpu) > 0


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A family's tiny checkpoint, which stands in for the published one."""
    from tiny_families import write_tiny

    root, made = tmp_path_factory.mktemp("tiny"), dict[str, Path]()

    def of(family: str) -> Path:
        if family not in made:
            made[family] = write_tiny(family, root / family)
        return made[family]

    return of


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the data is prepared, once a family."""
    return tmp_path_factory.mktemp("shared") / "home"


@pytest.mark.slow
@pytest.mark.parametrize("family", SIZES)
def test_a_recipe_plans_from_the_command_line(
    family: str,
    tiny: Callable[[str], Path],
    bank_forms: Path,
    shared_home: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = next(path for path in ON_GPUS if load_recipe(path).family == family)
    settings = [
        f"base.path={tiny(family)}",
        f"data.source={bank_forms / 'labels.jsonl'}",
        "data.max_bad=0.2",
        # The tiny checkpoints have no more positions.
        "serve.max_model_len=1024",
        "train.max_length=1024",
        f"base.revision={'a' * 40}",
    ]
    words = [str(path), *(word for each in settings for word in ("-s", each)), "--home", str(shared_home)]
    assert main(["prepare", *words]) == 0
    capsys.readouterr()
    assert main(["plan", *words, "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)["plan"]
    assert planned["steps"] > 0


def test_all_read_the_same_data() -> None:
    """So the data of one for each family is enough to prepare."""
    first, *others = [load_recipe(path).data for path in ON_GPUS]
    assert all(other == first for other in others)
