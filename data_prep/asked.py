"""What is asked of a preparation: its sources as opened, what binds it, and the keys of what it makes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from data_prep.answer_schema.schema import read_schema
from data_prep.card import CARD_TEMPLATE
from data_prep.forgetting import Forgotten
from data_prep.history import resolve_exams, resolve_previous
from data_prep.lengths import counted_with
from data_prep.pictures import image_limits
from data_prep.remote import with_sources_here
from data_prep.report import Before
from data_prep.sources.opening import open_sources
from data_prep.sources.source import Source
from data_prep.templates import FOLDER
from data_prep.videos.films import Films
from lensmith.artifact import Artifact
from lensmith.files import digest_json
from lensmith.home import Home
from lensmith.images import ImageLimits
from lensmith.intake import find_intake
from lensmith.page import template_digests
from lensmith.provenance import stage_key
from lensmith.recipe import Recipe
from lensmith.tokens import Grid, read_grid

MODULE = "data_prep.prepare"
PACKAGES = (
    "pillow", "pyarrow", "pydantic", "jinja2", "numpy", "xxhash", "jsonschema", "phonenumbers", "pyyaml",
)  # fmt: skip
# What names a place: the key holds what lies there instead; and what must not matter.
_TOLD_BY_CONTENT: dict[str, Any] = {
    "source": True,
    "sources": {"__all__": {"path"}},
    "previous": True,
    "exams": True,
    "answer_schema": {"file", "inline"},
    # Who does the work changes nothing of it.
    "engine": True,
}


@dataclass(frozen=True)
class Asked:
    """The recipe with its data on this machine and the schema of answers in it, the places that the data came
    from, the sources as opened, what is kept of videos, the earlier datasets that bind this one, what is
    forgotten, the image grid of the base, and the three keys."""

    recipe: Recipe
    places: list[str]
    sources: list[Source]
    films: Films | None
    previous: Artifact | None
    before: Before | None
    exams: list[Artifact]
    limits: ImageLimits
    grid: Grid | None
    forgotten: Forgotten
    dataset_key: str
    held_out_key: str
    intake_key: str


def ask(recipe: Recipe, home: Home) -> Asked:
    """Read the labels and look at size and time of their images, to know the keys; decodes no image.

    Raises InputError where labels, schema or an earlier dataset cannot be read at all.
    """
    places = [str(each.path) for each in recipe.data.all_sources()]
    recipe = _with_schema_here(with_sources_here(recipe, home))
    data = recipe.data
    films = Films(home.root / "cache/videos", data.video) if data.video else None
    sources = open_sources(data, home.root / "cache/downloads", films)
    grid = _grid(recipe)
    previous = resolve_previous(data, home)
    exams = resolve_exams(data, home)
    forgotten = Forgotten.load(home.root)
    asked = {
        "sources": [_source_asked(source) for source in sources],
        "data": data.model_dump(mode="json", exclude=_TOLD_BY_CONTENT),
        "previous": previous and previous.id,
        "exams": [each.id for each in exams],
        "schema": data.answer_schema and digest_json(data.answer_schema.inline),
        "coordinates": asdict(recipe.model_family.coordinates),
        "markup": list(recipe.model_family.markup),
        "speech": [recipe.rendering.writes_tools, recipe.rendering.writes_thoughts],
        "max_images": recipe.serve.max_images,
        "forgotten": forgotten.digest,
        "counted": counted_with(recipe, grid),
    }
    held_out_key = stage_key("held_out", MODULE, PACKAGES, asked, {})
    # The exam does not depend on what the base's processor makes of its images; the dataset's figures do, and
    # its card is one of the templates. All others are the report's.
    templates = template_digests(FOLDER)
    seen = asked | {
        "grid": grid and asdict(grid),
        "family": recipe.family,
        "card": templates[CARD_TEMPLATE],
        "new_tokens": sorted(recipe.train.new_tokens),
    }
    dataset_key = stage_key("dataset", MODULE, PACKAGES, seen, {})
    before = Before(previous, find_intake(home, previous)) if previous else None
    compared = {"templates": templates, "compared": before and before.intake and before.intake.id}
    intake_key = stage_key("intake", MODULE, PACKAGES, seen | compared, {})
    return Asked(
        recipe,
        places,
        sources,
        films,
        previous,
        before,
        exams,
        image_limits(data),
        grid,
        forgotten,
        dataset_key,
        held_out_key,
        intake_key,
    )


def _with_schema_here(recipe: Recipe) -> Recipe:
    """The recipe with the content of its schema: a worker on another machine need not have the file."""
    if (asked := recipe.data.answer_schema) is None:
        return recipe
    schema = asked.model_copy(update={"file": None, "inline": read_schema(asked).content})
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"answer_schema": schema})})


def _grid(recipe: Recipe) -> Grid | None:
    """The base's image grid; None while there is no base yet: data can be checked before it arrives."""
    if not recipe.base.path.is_dir():
        return None
    return read_grid(recipe.base.path, recipe.model_family, recipe.pixel_budget)


def _source_asked(source: Source) -> list[object]:
    """Name, format and content of a source; size and time of change of every file that its rows name."""
    samples = (found.sample for found in source.rows() if found.sample)
    paths = {each.path for sample in samples for each in (*sample.images, *sample.videos)}
    stamps = [[path, *source.picture_stamp(path)] for path in sorted(paths)]
    return [source.name, source.format, source.facts(), digest_json(stamps)]
