"""Everything that is looked at in a row before its pictures are opened."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

from data_prep.answer_schema.schema import AnswerSchema, read_schema
from data_prep.checks import check_sample
from data_prep.flag import Flag
from data_prep.instructions.flags import instruction_flags
from data_prep.labels.labelling import read_labelling
from data_prep.personal.screen import Screen, Screened
from data_prep.refusal import Flaw, quoted
from data_prep.regions import region_flags, region_flaws
from data_prep.rejected import with_rejected
from data_prep.sources.source import Found
from data_prep.tools import speech_flaws
from data_prep.wording.checks import wording_flags, wording_flaws
from lensmith.recipe import Recipe
from lensmith.sample import Sample


class Screening:
    """The checks that a recipe asks for; made once for a run.

    Raises InputError where the recipe's schema of answers cannot be used.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._data = recipe.data
        self._family = recipe.model_family
        self._rendering = recipe.rendering
        self._known = (*self._family.markup, *recipe.train.new_tokens)
        self._max_images = recipe.serve.max_images
        schema = recipe.data.answer_schema
        self._schema: AnswerSchema | None = None if schema is None else read_schema(schema)
        self._personal = Screen(recipe.data.personal)

    def screen(self, found: Found) -> Found:
        """The row as it goes on, personal data replaced where the recipe says so, with flaws and flags."""
        if found.sample is None:
            return found
        seen = self._look(found.sample)
        if found.sample.rejected:
            seen = with_rejected(found.sample, seen, self._look(found.sample.with_rejected()))
        return replace(
            found,
            row=found.sample.id,
            sample=seen.sample,
            flaws=(*found.flaws, *seen.flaws),
            flags=seen.flags,
        )

    def _look(self, sample: Sample) -> Screened:
        flaws = tuple(self._flaws(sample))
        screened = self._personal.screen(sample)
        flags = (*screened.flags, *self._flags(sample))
        return Screened(screened.sample, (*flaws, *screened.flaws), flags)

    def _flags(self, sample: Sample) -> Iterator[Flag]:
        yield from instruction_flags(sample, self._known)
        yield from wording_flags(sample, self._data.wording)
        yield from region_flags(sample, self._family.coordinates)

    def _flaws(self, sample: Sample) -> Iterator[Flaw]:
        conversation = check_sample(
            sample, self._data.answer, self._family.markup, self._max_images, self._data.text_only
        )
        yield from conversation
        yield from wording_flaws(sample)
        if sample.group != sample.group.strip():
            what = f"the group {quoted(sample.group)} begins or ends with empty space"
            mend = "remove it: it would be another group than the one without, perhaps in another split"
            yield Flaw("schema", what, mend)
        made = read_labelling(sample.origin, self._data.labels.named, datetime.now(UTC))
        if isinstance(made, Flaw):
            yield made
        yield from region_flaws(sample, self._family.coordinates)
        yield from speech_flaws(sample, self._rendering)
        # A schema has nothing to say of an answer that is no JSON object.
        if self._schema is not None and not conversation:
            yield from self._schema.check(sample.answer)
