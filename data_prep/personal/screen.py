"""A row's personal data, handled as the recipe says."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from data_prep.flag import Flag
from data_prep.personal.finder import Finder
from data_prep.personal.redaction import Found, Redactor
from data_prep.refusal import Flaw
from lensmith.data_settings import Action, DetectorName, Personal, Place
from lensmith.sample import Image, Message, Part, Region, Sample, Text, Thinking, ToolCall, Video

_SHOWN = 3
_WORDS: dict[Place, str] = {
    "id": "the id",
    "group": "the group",
    "question": "the question",
    "answer": "the answer",
    "meta": "meta",
}


@dataclass(frozen=True)
class Screened:
    """The row as it may go on, what speaks against it, and what to look at."""

    sample: Sample
    flaws: tuple[Flaw, ...] = ()
    flags: tuple[Flag, ...] = ()


class Screen:
    """Screens rows by the settings; made once for a run."""

    def __init__(self, settings: Personal) -> None:
        self._settings = settings
        wanted: frozenset[DetectorName] = frozenset(
            each.name
            for each in Finder(settings.phone_regions).detectors
            if settings.action_of(each.name) != "ignore"
        )
        finder = Finder(settings.phone_regions, wanted)
        self._redactor = Redactor(finder, lambda each: settings.action_of(each.name) == "redact")
        self._reader = Redactor(finder, lambda each: False)

    def screen(self, sample: Sample) -> Screened:
        """The sample with placeholders where the recipe says `redact`, its flaws (`refuse`) and flags.

        An id or a group is never changed, it ties rows together: with `redact` it is flagged.
        """
        found: dict[Place, list[Found]] = {place: [] for place in self._settings.places}
        for place, name in (("id", sample.id), ("group", sample.group)):
            if place in found:
                found[place] += self._reader.redact(name)[1]
        last = len(sample.messages) - 1
        messages = tuple(
            self._message(message, found.get("answer" if at == last else "question"))
            for at, message in enumerate(sample.messages)
        )
        meta, in_meta = self._content(sample.meta) if "meta" in found and sample.meta else (sample.meta, [])
        if in_meta:
            found["meta"] += in_meta
        if not any(found.values()):
            return Screened(sample)
        flaws: list[Flaw] = []
        flags: list[Flag] = []
        for place, here in found.items():
            _report(place, here, self._settings, flaws, flags)
        return Screened(replace(sample, messages=messages, meta=meta), tuple(flaws), tuple(flags))

    def _message(self, message: Message, found: list[Found] | None) -> Message:
        if found is None:
            return message
        before = len(found)
        parts: list[Part] = []
        # Neighbouring texts are read as one: what is cut between them stands in none alone.
        for kind, run in groupby(message.parts, key=type):
            here: list[Found] = []
            new = [self._part(part, here) for part in run]
            if len(new) > 1 and issubclass(kind, Text | Thinking):
                new, here = self._joined(kind, new, here)
            parts += new
            found += here
        return message if len(found) == before else replace(message, parts=tuple(parts))

    def _joined(
        self, kind: type[Text | Thinking], parts: list[Part], found: list[Found]
    ) -> tuple[list[Part], list[Found]]:
        """Neighbouring texts that were searched one by one, and what they hold besides as one text.

        Where that is replaced they become one part: a model reads the same.
        """
        text = "".join(part.text for part in parts if isinstance(part, Text | Thinking))
        redacted, every = self._redactor.redact(text)
        more = Counter(every) - Counter(found)
        if not more:
            return parts, found
        return (parts if redacted == text else [kind(redacted)]), [*found, *more.elements()]

    def _part(self, part: Part, found: list[Found]) -> Part:
        match part:
            case Text(text):
                redacted, here = self._redactor.redact(text)
                new = part if redacted == text else Text(redacted)
            case Thinking(text):
                redacted, here = self._redactor.redact(text)
                new = part if redacted == text else Thinking(redacted)
            case Region(label=label):
                redacted, here = self._redactor.redact(label)
                new = part if redacted == label else replace(part, label=redacted)
            case ToolCall(arguments=arguments):
                content, here = self._content(arguments)
                new = replace(part, arguments=content) if here else part
            case Image() | Video():
                return part
        found += here
        return new

    def _content(self, content: dict[str, Any]) -> tuple[dict[str, Any], list[Found]]:
        text = json.dumps(content, ensure_ascii=False)
        redacted, found = self._redactor.redact(text)
        return (content if redacted == text else json.loads(redacted)), found


def _report(
    place: Place, found: list[Found], settings: Personal, flaws: list[Flaw], flags: list[Flag]
) -> None:
    """One flaw or flag a place and action."""
    by_action: dict[Action, list[Found]] = {}
    for each in found:
        by_action.setdefault(settings.action_of(each.detector.name), []).append(each)
    for action, here in by_action.items():
        what = f"{_WORDS[place]} holds {_listed(here)}"
        if action == "refuse":
            flaws.append(Flaw("personal_data", what, "remove it from the row, or replace it by made-up data"))
        elif action == "redact" and place in ("question", "answer", "meta"):
            mend = (
                "nothing, unless the placeholder stands where the model has to read: then leave the row out"
            )
            flags.append(Flag("redacted", f"{what}: replaced by placeholders", mend))
        else:
            mend = "give it a name of its own that is nobody's data" if place in ("id", "group") else (
                "remove it if the model need not know it, or set data.personal.action to redact or refuse"
            )  # fmt: skip
            flags.append(Flag("personal_data", what, mend))


def _listed(found: list[Found]) -> str:
    titles = Counter(each.detector.title for each in found)
    kinds = [f"{title} ({count} times)" if count > 1 else title for title, count in titles.items()]
    shown = ", ".join(each.masked() for each in found[:_SHOWN])
    return f"{' and '.join(kinds)}: {shown}{', ...' if len(found) > _SHOWN else ''}"
