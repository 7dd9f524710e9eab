"""Label Studio's JSON export: a list of tasks, each with its annotations.

    [{"id": 12, "data": {"image": "/data/local-files/?d=images/form-1.png", "customer": "c-7"},
      "annotations": [{"completed_by": {"email": "ana@example.org"}, "updated_at": "2026-03-01T10:00:00Z",
                       "result": [{"from_name": "amount", "to_name": "image", "type": "textarea",
                                   "value": {"text": ["12.50"]}}]}]}]

Each annotation is a label of its task. The first by number has the task's id, so that a label added later
renames none; further ones have it with their number, and all have it as meta.item. Where another annotation
stands, those who cancelled theirs are listed in meta (skipped_by); a task that nobody labelled is a flaw. How
an annotation becomes an answer is the option `answer`; what other controls say is left behind. Images lie
below `folder`: `/data/local-files/?d=P` is P there, `/data/upload/3/P` is upload/3/P. Relations go into meta.
Also left behind: drafts, lead times, comments, task numbers, file_upload. Refused by name: the JSON-MIN
export, which tells no answer from other data, and shapes that are neither boxes nor points.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import Field, model_validator

from data_prep.refusal import Flaw
from data_prep.sources.json_lines import Record
from data_prep.sources.label_studio_config import read_controls
from data_prep.sources.label_studio_results import Results
from data_prep.sources.records import (
    RecordSource,
    Unusable,
    lookup,
    name_at,
    object_of,
    schema,
    shown_id,
)
from lensmith.files import digest_file
from lensmith.sample import Image, Message, Origin, Part, Sample, Text
from lensmith.section import Section

_LOCAL_FILES = "/data/local-files/"
_DATA = "/data/"


class LabelStudioOptions(Section):
    """How tasks become conversations. Fields are named with dots from the task: data.customer."""

    image: str = Field(default="data.image", description="field with the image's address, or a list of them")
    folder: str = Field(default="", description="folder of the images, relative to the export")
    prompt: str = Field(default="", description="the question, the same for all tasks")
    prompt_field: str = Field(default="", description="field with the question, instead of `prompt`")
    system: str = Field(default="", description="the system prompt, the same for all tasks")
    id: str = Field(default="", description="field with the row's id; task-NUMBER where empty")
    group: str = Field(
        default="", description="field with what must stay together; the first image where empty"
    )
    meta: list[str] = Field(default_factory=list, description="fields that are kept, by their last name")
    answer: Literal["text", "json", "regions"] = Field(
        description="the text of one control, a JSON object of controls, or the boxes and points"
    )
    control: str = Field(default="", description="answer text: the control's name; the only one where empty")
    keys: list[str] = Field(
        default_factory=list,
        description="answer json: the controls, in the order of the keys; those of `config` where empty",
    )
    config: str = Field(
        default="", description="the labelling configuration (XML), relative to the export: order and lists"
    )
    lists: list[str] = Field(
        default_factory=list, description="answer json: controls whose value is a list even of one"
    )
    absent: Literal["omit", "null"] = Field(
        default="omit", description="answer json: what a control without a value gives"
    )
    region_label: Literal["label", "text"] = Field(
        default="label", description="answer regions: named by their label, or by the text typed into them"
    )
    rotated: Literal["hull", "refuse"] = Field(
        default="refuse", description="turned boxes: their upright hull, or a refused row"
    )
    labels: Literal["annotations", "predictions"] = Field(
        default="annotations", description="what people said, or what a model said"
    )

    @model_validator(mode="after")
    def _asks_something(self) -> LabelStudioOptions:
        if bool(self.prompt) == bool(self.prompt_field):
            raise ValueError("give either prompt or prompt_field: the question that the answer answers")
        return self


class LabelStudio(RecordSource):
    """A Label Studio export. Raises InputError where `config` cannot be read."""

    format = "label_studio"
    options_kind = LabelStudioOptions

    def __init__(self, path: Path, options: LabelStudioOptions) -> None:
        self.options = options
        super().__init__(path, options.folder)
        controls = read_controls(path.parent / options.config) if options.config else {}
        self._keys = options.keys or list(controls)
        self._lists = frozenset(options.lists) | {name for name, several in controls.items() if several}

    def facts(self) -> dict[str, Any]:
        config = self.path.parent / self.options.config
        return super().facts() | ({"config": digest_file(config)} if self.options.config else {})

    def row_id(self, value: Any) -> str:
        if self.options.id:
            return shown_id(value, self.options.id)
        number = shown_id(value, "id")
        return f"task-{number}" if number else ""

    def samples(self, record: Record) -> Iterator[Sample]:
        task = object_of(record.value)
        if "annotations" not in task and "annotation_id" in task:
            raise Unusable(schema("the export is JSON-MIN", "export the project again, as JSON"))
        if not isinstance(task.get("data"), dict):
            raise Unusable(schema("data is missing", "export the project as JSON, with its tasks' data"))
        sample_id = name_at(task, self.options.id) if self.options.id else f"task-{name_at(task, 'id')}"
        images = self._images(task)
        group = name_at(task, self.options.group) if self.options.group else images[0]
        question = self._question(task)
        meta = {
            name.rpartition(".")[2]: found
            for name in self.options.meta
            if (found := lookup(task, name)) is not None
        }
        # All labels are read before any is given: a task is taken whole or refused whole.
        kept, skipped_by = self._labels(task)
        if skipped_by:
            meta["skipped_by"] = skipped_by
        labels = [self._label(label, len(images)) for label in kept]
        if len(labels) > 1:
            meta["item"] = sample_id
        for number, (label, (answer, sizes, more, origin)) in enumerate(zip(kept, labels, strict=True)):
            shown = [Image(path, size=sizes.get(at, (0, 0))) for at, path in enumerate(images)]
            messages = (
                *([Message("system", (Text(self.options.system),))] if self.options.system else []),
                Message("user", (*shown, Text(question))),
                Message("assistant", answer),
            )
            name = f"{sample_id}-label-{_number(label) or number + 1}" if number else sample_id
            yield Sample(name, group, messages, meta | more, (), origin)

    def _images(self, task: dict[str, Any]) -> list[str]:
        found = lookup(task, self.options.image)
        addresses = found if isinstance(found, list) else [found]
        if not addresses or not all(isinstance(address, str) and address for address in addresses):
            mend = "name the field with the image's address: options.image"
            raise Unusable(Flaw("no_image", f"{self.options.image} names no image", mend))
        return [local_path(address) for address in addresses]

    def _question(self, task: dict[str, Any]) -> str:
        if not self.options.prompt_field:
            return self.options.prompt
        found = lookup(task, self.options.prompt_field)
        if not isinstance(found, str):
            raise Unusable(schema(f"{self.options.prompt_field} is no text", "give every task its question"))
        return found

    def _labels(self, task: dict[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
        """The annotations that count, and who cancelled the others. Raises Unusable where none counts."""
        listed = task.get(self.options.labels)
        if listed is None:
            listed = []
        if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
            what = f"{self.options.labels} is not a list of objects"
            raise Unusable(schema(what, "export the project as JSON, with annotations in full"))
        kept = sorted((each for each in listed if not each.get("was_cancelled")), key=_number)
        skipped_by = sorted({_labeller(each) or "somebody" for each in listed if each.get("was_cancelled")})
        if kept:
            return kept, skipped_by
        if not listed:
            raise Unusable(Flaw("unlabelled", f"the task has no {self.options.labels}", "label it"))
        what = f"the task was skipped by {', '.join(skipped_by)}"
        raise Unusable(Flaw("unlabelled", what, "label it, or leave it out"))

    def _label(
        self, label: dict[str, Any], images: int
    ) -> tuple[tuple[Part, ...], dict[int, tuple[int, int]], dict[str, Any], Origin]:
        """Answer, image sizes by place, what goes into meta, and origin of one annotation."""
        results = Results(label.get("result"), images, self.options.rotated)
        relations = results.relations()
        origin = Origin(
            labeller=_labeller(label), labelled_at=_text(label.get("updated_at") or label.get("created_at"))
        )
        return (
            self._answer(results),
            results.sizes(),
            {"relations": relations} if relations else {},
            origin,
        )

    def _answer(self, results: Results) -> tuple[Part, ...]:
        match self.options.answer:
            case "regions":
                return tuple(results.regions(self.options.region_label)) or (Text(""),)
            case "text":
                return (Text(results.text_of(self.options.control)),)
            case "json":
                return (Text(self._json(results)),)

    def _json(self, results: Results) -> str:
        values = results.values(self._keys)
        if not values:
            # No control was touched: an empty answer, which the checks refuse as such.
            return ""
        answer: dict[str, Any] = {}
        for name in self._keys or values:
            if name in values:
                several = name in self._lists or len(values[name]) > 1
                answer[name] = values[name] if several else values[name][0]
            elif self.options.absent == "null":
                answer[name] = None
        return json.dumps(answer, ensure_ascii=False, separators=(",", ":"))


def local_path(address: str) -> str:
    """The path below the image root that a task's address means; other addresses as they are."""
    if not address.startswith(_DATA):
        return address
    split = urlsplit(address)
    if split.path == _LOCAL_FILES:
        return parse_qs(split.query).get("d", [""])[0]
    return unquote(split.path.removeprefix(_DATA))


def _number(label: dict[str, Any]) -> int:
    """The number of an annotation, 0 where it has none."""
    number = label.get("id")
    return number if isinstance(number, int) else 0


def _labeller(label: dict[str, Any]) -> str:
    who = label.get("completed_by")
    if isinstance(who, dict):
        who = who.get("email") or who.get("id")
    return _text(who if who is not None else label.get("model_version"))


def _text(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value.isprintable() else ""
