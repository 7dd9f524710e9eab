"""The recipe: one YAML file that says everything. Its schema, its loader and its errors.

Paths inside a recipe are relative to the recipe file; paths given with `-s` to the current directory.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, Field, ValidationError, model_validator

from lensmith import families
from lensmith.address import is_address
from lensmith.base_settings import Base
from lensmith.data_settings import Data
from lensmith.errors import InputError, Problem
from lensmith.families.family import Family
from lensmith.merge_settings import MERGED_ONLY, Merge, merge_problems
from lensmith.method_limits import adapter_problems, family_problems, serve_problems
from lensmith.recipe_problems import recipe_problems
from lensmith.rendering import Rendering
from lensmith.section import Count, ResolvedPath, Section, refuse
from lensmith.serve_settings import Serve
from lensmith.tokens import PixelBudget, no_budget, read_area_grid
from lensmith.train_settings import Train
from lensmith.yaml_file import parse_scalar, read_yaml

# [] stands for every item of a list.
PATHS = (
    "base.path",
    "data.source",
    "data.sources[].path",
    "data.answer_schema.file",
    "train.launcher",
    "merge.adapters[].path",
    "gates",
)
# Those that may be the address of a store instead.
_ADDRESSED = ("data.source", "data.sources[].path")


def _known_family(name: str) -> str:
    if name not in families.FAMILIES:
        raise ValueError(f"no family is called {name!r}: {families.nearest(name)}")
    return name


FamilyName = Annotated[str, AfterValidator(_known_family)]


class ImageTokens(Section):
    """Bounds on what one image costs in language-model tokens."""

    min: Count = Field(description="smaller images are enlarged to as many tokens")
    max: Count = Field(description="larger images are reduced to as many tokens")

    @model_validator(mode="after")
    def _ordered(self) -> ImageTokens:
        if self.min > self.max:
            raise ValueError("min is above max")
        return self


class Pixels(Section):
    """What an image may take, in pixels or in tokens, in training and serving alike."""

    min_pixels: Count | None = Field(
        default=None, description="smaller images are enlarged to this area, in pixels"
    )
    max_pixels: Count | None = Field(
        default=None, description="larger images are reduced to this area, in pixels"
    )
    image_tokens: ImageTokens | None = Field(default=None, description="the same in image tokens, instead")

    @model_validator(mode="after")
    def _one_form(self) -> Pixels:
        pixels = (self.min_pixels, self.max_pixels)
        if self.image_tokens is not None:
            if pixels != (None, None):
                raise ValueError("give min_pixels and max_pixels, or image_tokens, not both")
        elif self.min_pixels is None or self.max_pixels is None:
            raise ValueError("give min_pixels and max_pixels, or image_tokens with min and max")
        elif self.min_pixels > self.max_pixels:
            raise ValueError("min_pixels is above max_pixels")
        return self


class Evaluate(Section):
    """How answers are judged."""

    resamples: Annotated[int, Field(ge=100)] = Field(
        default=2000, description="bootstrap resamples over groups"
    )
    seed: int = Field(default=17, description="of the bootstrap")
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = Field(default=0.95, description="of the intervals")


class Release(Section):
    """What the released model is called and for."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{1,62}$")] = Field(
        description="name in the registry: small letters, digits, hyphens"
    )
    intended_use: str = Field(description="one or two sentences for the model card")
    limitations: str = Field(default="", description="what it should not be used for")


class Recipe(Section):
    """A whole recipe."""

    version: Literal[1] = Field(description="of this schema")
    family: FamilyName = Field(description=f"model family: {', '.join(families.FAMILIES)}")
    base: Base = Field(description="the checkpoint that is tuned")
    data: Data = Field(description="the labelled data")
    pixels: Pixels | None = Field(default=None, description="pixel budget; the checkpoint's own where absent")
    train: Train = Field(description="the fine-tune")
    merge: Merge | None = Field(default=None, description="further adapters that are merged with it")
    serve: Serve = Field(default_factory=Serve, description="the engine")
    evaluate: Evaluate = Field(default_factory=Evaluate, description="the exam")
    release: Release = Field(description="the release")
    gates: ResolvedPath = Field(description="policy that promotion must pass")

    @model_validator(mode="after")
    def _fits_family_and_engine(self) -> Recipe:
        family, problems = self.model_family, list[str]()
        if self.pixels is not None and family.cut != "area":
            problems.append(f"{no_budget(family).summary}: leave out pixels")
        problems += family_problems(self.train, self.data, family)
        problems += serve_problems(self.serve, self.train, family)
        if self.merge is not None:
            problems += merge_problems(self.train)
        if self.serve.mode == "adapter":
            if self.merge is not None:
                problems.append(MERGED_ONLY)
            problems += adapter_problems(self.train, family, self.serve)
        if self.serve.guided_json and (self.data.answer != "json" or self.data.answer_schema is None):
            problems.append(
                "serve.guided_json keeps answers to a schema: give data.answer: json and its schema"
            )
        if self.serve.guided_json and self.serve.thinking:
            # vLLM guides what follows a thought alone, and proofs are made without its parser of thoughts.
            problems.append("serve.guided_json and serve.thinking: guided answers have no place for thoughts")
        refuse(problems)
        return self

    @property
    def model_family(self) -> Family:
        """The facts of the recipe's family."""
        return families.get(self.family)

    @property
    def pixel_budget(self) -> PixelBudget | None:
        """The bounds of an image in pixels, whichever way `pixels` gives them; None for the checkpoint's own.

        Raises InputError where they are given in tokens and the base has no image processor to say how many
        pixels one token covers.
        """
        pixels = self.pixels
        if pixels is None:
            return None
        if pixels.image_tokens is not None:
            area = read_area_grid(self.base.path, self.model_family, None).token_area
            return PixelBudget(pixels.image_tokens.min * area, pixels.image_tokens.max * area)
        # `Pixels` is valid with both or with image_tokens only.
        return PixelBudget(pixels.min_pixels or 0, pixels.max_pixels or 0)

    @property
    def rendering(self) -> Rendering:
        """How its models are taught, asked and judged."""
        return Rendering(self.model_family, self.train.thinking)

    @property
    def licence(self) -> str:
        """The base's licence, which the release carries."""
        return self.base.licence or self.model_family.licence


def load_recipe(path: Path, settings: Sequence[str] = ()) -> Recipe:
    """Read the recipe at `path` with `settings` ("train.epochs=2") laid over it.

    Raises InputError with every problem: file, line, key and how to mend it.
    """
    file = read_yaml(path)
    content = _with_absolute_paths(file.content, path.resolve().parent)
    problems = [problem for text in settings if (problem := _apply(content, text))]
    if problems:
        raise InputError("a setting given with -s cannot be used", problems)
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        problems = recipe_problems(error, path, file, settings, known_keys)
        raise InputError(f"{path} cannot be used", problems) from error


def _with_absolute_paths(content: dict[str, Any], root: Path) -> dict[str, Any]:
    for dotted in PATHS:
        _make_absolute(content, dotted.split("."), root, dotted in _ADDRESSED)
    return content


def _make_absolute(section: Any, names: Sequence[str], root: Path, addressed: bool) -> None:
    name, *rest = names
    key = name.removesuffix("[]")
    if not isinstance(section, dict) or key not in section:
        return
    if not rest:
        if isinstance(section[key], str):
            section[key] = _absolute(section[key], root, addressed)
        return
    below = section[key]
    for each in below if name != key and isinstance(below, list) else [below]:
        _make_absolute(each, rest, root, addressed)


def _absolute(value: str, root: Path, addressed: bool) -> str:
    if addressed and is_address(value):
        return value
    return str((root / Path(value).expanduser()).resolve())


def _apply(content: dict[str, Any], text: str) -> Problem | None:
    dotted, equals, raw = text.partition("=")
    if not equals or not dotted:
        return Problem("is not key.path=value", text, "for example -s train.epochs=2")
    try:
        value = parse_scalar(raw)
    except ValueError as error:
        return Problem(f"is not a YAML value: {error}", text)
    if dotted in PATHS and isinstance(value, str):
        value = _absolute(value, Path.cwd(), dotted in _ADDRESSED)
    *parents, last = dotted.split(".")
    section: Any = content
    for name in parents:
        section = section.setdefault(name, {}) if isinstance(section, dict) else None
    if not isinstance(section, dict):
        return Problem("sets a key below a value", text)
    section[last] = value
    return None


def section_at(dotted: str) -> type[BaseModel] | None:
    """The schema of the recipe's section at `dotted` ("" for the top), None where there is no section."""
    section: type[BaseModel] = Recipe
    for name in filter(None, dotted.split(".")):
        if name.isdigit():
            # An item of a list is a section like the others.
            continue
        field = section.model_fields.get(name)
        if field is None:
            return None
        kinds = (field.annotation, *get_args(field.annotation))
        inner = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not inner:
            return None
        section = inner[0]
    return section


def known_keys(dotted: str) -> list[str]:
    """The keys of the recipe's section at `dotted` ("" for the top)."""
    section = section_at(dotted)
    return list(section.model_fields) if section else []
