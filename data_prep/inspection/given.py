"""What the paths of a hand-over are: each opened as the source that it is found to be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data_prep.inspection.picture_folder import PictureFolder
from data_prep.pictures import image_limits
from data_prep.sources.archived import NoLabels
from data_prep.sources.detect import TITLES, Candidate, candidates, detect, is_archive
from data_prep.sources.opening import open_sources
from data_prep.sources.options import WrongOptions
from data_prep.sources.registry import open_source
from data_prep.sources.sheet import open_sheet
from data_prep.sources.source import Source
from lensmith.artifact import open_artifact
from lensmith.data_settings import Download
from lensmith.errors import InputError, IntegrityError, Problem
from lensmith.images import ImageLimits
from lensmith.recipe import load_recipe

_RECIPES = (".yaml", ".yml")


@dataclass(frozen=True)
class Given:
    """One source: how it is told from the others, its format in words, and why it was taken for that.

    root: the folder or archive that it lies in. source: None where `lacking` says what a recipe has to tell
    before its rows can be read; columns: those of a table that waits for it.
    """

    title: str
    format: str
    why: str
    root: Path
    source: Source | None
    lacking: tuple[Problem, ...] = ()
    columns: tuple[str, ...] = ()

    @property
    def labelled(self) -> bool:
        """Whether it has labels, readable or not."""
        return not isinstance(self.source, PictureFolder)


@dataclass(frozen=True)
class HandOver:
    """Everything that was handed over; `fetched`: addresses of images are allowed, and not followed here."""

    given: tuple[Given, ...]
    limits: ImageLimits
    fetched: bool = False


def open_paths(paths: Sequence[Path]) -> HandOver:
    """Files and folders as somebody handed them over, or the data section of one recipe.

    Raises InputError where there is nothing at a path or nothing that is known, where it is a home or lies in
    a sealed exam, and where a recipe is not alone or names an address.
    """
    # A path that is given twice is one.
    each = list({path.resolve(): path for path in paths}.values())
    if any(path.suffix.lower() in _RECIPES for path in each):
        if len(each) > 1:
            mend = "name it alone, or the folders without it"
            raise InputError("a recipe says what its data is", [Problem("is not alone", str(each[0]), mend)])
        return _of_recipe(each[0])
    found = [given for path in each for given in _of_path(path)]
    return HandOver(tuple(found + _beside(found)), ImageLimits())


def _of_recipe(path: Path) -> HandOver:
    data = load_recipe(path).data
    problems = [
        Problem("lies in a store", each.path, "lensmith prepare fetches it; look at a copy on this disk")
        for each in data.all_sources()
        if isinstance(each.path, str)
    ]
    if problems:
        raise InputError(f"{path} names what is not on this machine", problems)
    for each in data.all_sources():
        _refuse_exam(each.local)
    # Without hosts nothing is fetched, and no place for it is needed.
    sources = open_sources(data.model_copy(update={"download": Download()}), Path())
    given = [
        Given(
            source.name, TITLES[source.format], source.why or "the recipe says so", _root(spec.local), source
        )
        for source, spec in zip(sources, data.all_sources(), strict=True)
    ]
    return HandOver(tuple(given), image_limits(data), fetched=bool(data.download.hosts))


def _of_path(path: Path) -> list[Given]:
    _refuse_exam(path)
    if is_archive(path, None):
        return [_of_archive(path)]
    if found := candidates(path):
        return [_of_labels(each) for each in found]
    if path.is_dir() and (pictures := PictureFolder(path)).names:
        return [_unlabelled(pictures, "nothing in it is a file of labels of a known format")]
    # Says what was looked for.
    detect(path)
    raise AssertionError(path)


def _of_labels(found: Candidate) -> Given:
    title, words, root = str(found.path), TITLES[found.format], _root(found.path)
    try:
        return Given(title, words, found.why, root, open_source(found.path, found.format, {}))
    except WrongOptions as error:
        columns = open_sheet(found.path).columns if found.format in ("csv", "excel") else ()
        return Given(title, words, found.why, root, None, error.problems, tuple(columns))


def _of_archive(path: Path) -> Given:
    try:
        source = open_source(path, None, {})
    except NoLabels:
        return _unlabelled(PictureFolder(path), "no file of labels is in it")
    except WrongOptions as error:
        return Given(str(path), "an archive", "it is a zip or tar", path, None, error.problems)
    return Given(str(path), TITLES[source.format], source.why, path, source)


def _unlabelled(pictures: PictureFolder, why: str) -> Given:
    return Given(str(pictures.root), "pictures without labels", why, pictures.root, pictures)


def _beside(given: Sequence[Given]) -> list[Given]:
    """The pictures that lie where labels cannot be read yet, and that no other source names."""
    read = {each.root.resolve() for each in given if each.source is not None}
    roots = dict.fromkeys(each.root.resolve() for each in given if each.source is None)
    found = [PictureFolder(root) for root in roots if root not in read]
    return [_unlabelled(each, "they lie beside the labels") for each in found if each.names]


def _root(path: Path) -> Path:
    return path if path.is_dir() or is_archive(path, None) else path.parent


def _refuse_exam(path: Path) -> None:
    """Raise InputError for a sealed exam, a place in one, or a home that may hold some."""
    place = path.resolve()
    if (place / "artifacts/held_out").is_dir():
        raise InputError(
            f"{path} is not looked at", [Problem("is a home", str(place), "name what was handed over")]
        )
    for each in (place, *place.parents):
        if _is_exam(each):
            mend = "look at its dataset, or at what was handed over"
            raise InputError(f"{path} is not looked at", [Problem("lies in a sealed exam", str(each), mend)])


def _is_exam(folder: Path) -> bool:
    try:
        return open_artifact(folder).kind == "held_out"
    except (InputError, IntegrityError):
        # Some other folder, perhaps with a manifest.json of its own.
        return False
