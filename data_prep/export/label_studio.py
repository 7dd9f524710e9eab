"""Writes Label Studio tasks: labels as annotations, a model's answers as predictions to correct.

A row is one question about its images and one answer: a JSON object of plain fields (a control each), boxes
and points, or a text; the first row decides which, and whether tasks have one image or a list. Who labelled
a row stands in data.origin: an import may only name people who have an account there. labelling.xml is the
labelling interface for the project; serve the images by pointing LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT at
the folder. `READ_BACK` are the options with which the reader takes the project's export again (with `answer`
and config: labelling.xml).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from data_prep.export.folder import CannotHold, Written, extras, one_answer, write_folder
from lensmith.row_file import Row
from lensmith.sample import Image, Message, Region, Text
from lensmith.strict_json import parse_strict_json

CONFIG = "labelling.xml"
READ_BACK = {"prompt_field": "data.question", "id": "data.id", "group": "data.group"}
_ADDRESS = "/data/local-files/?d="
_TEXT = "answer"

Kind = Literal["json", "regions", "text"]
Control = Literal["text", "texts", "number", "box", "point"]


def write(
    rows: Iterable[Row], folder: Path, predictions: Mapping[str, str] | None = None, model: str = "model"
) -> Written:
    """Write tasks.json, labelling.xml and images/.

    predictions: what `model` answered, by row id; an answer that its controls cannot show is left out and
    counted. Raises InputError where `folder` is already there.
    """
    writer = _Tasks(predictions or {}, model)
    written = write_folder(rows, folder, "tasks.json", writer.task, lambda: {CONFIG: writer.config()})
    return replace(written, predictions=writer.predicted, predictions_left_out=writer.predictions_left_out)


class _Tasks:
    """Writes tasks, and learns from them which controls the project needs."""

    def __init__(self, predictions: Mapping[str, str], model: str) -> None:
        self.predicted = 0
        self.predictions_left_out = 0
        self._predictions = predictions
        self._model = model
        self._kind: Kind | None = None
        self._controls: dict[str, Control] = {}
        self._labels: dict[Control, dict[str, None]] = {"box": {}, "point": {}}
        self._several_images: bool | None = None

    def task(self, row: Row, paths: Sequence[str]) -> dict[str, Any]:
        sample = row.sample
        one_answer(sample)
        if [message.role for message in sample.messages] != ["user", "assistant"] or sample.tools:
            raise CannotHold("more than one question and its answer")
        question = _question(sample.messages[0], len(paths))
        several = len(paths) > 1 if self._several_images is None else self._several_images
        if len(paths) > 1 and not several:
            raise CannotHold("several images, where the first row has one")
        kind = self._kind or _kind_of(sample.messages[1])
        results = self._results(kind, sample.messages[1], row)
        self._kind = kind
        self._several_images = several
        addresses = [_ADDRESS + quote(path) for path in paths]
        return {
            "data": {
                "image": addresses if several else addresses[0],
                "question": question,
                **extras(sample),
            },
            "annotations": [
                {"result": results, "was_cancelled": False},
            ],
            "predictions": self._prediction(kind, row),
        }

    def _prediction(self, kind: Kind, row: Row) -> list[dict[str, Any]]:
        answer = self._predictions.get(row.sample.id)
        if answer is None:
            return []
        try:
            # A model writes regions as its family does: only an evaluation reads them.
            if kind == "regions":
                raise CannotHold("regions")
            results = self._results(kind, Message("assistant", (Text(answer),)), row)
        except CannotHold:
            self.predictions_left_out += 1
            return []
        self.predicted += 1
        return [{"model_version": self._model, "result": results}]

    def _results(self, kind: Kind, answer: Message, row: Row) -> list[dict[str, Any]]:
        if kind == "regions":
            return self._regions(answer, row)
        if not all(isinstance(part, Text) for part in answer.parts):
            raise CannotHold("an answer of another kind than the first row's")
        if kind == "text":
            fields: dict[str, Any] | None = {_TEXT: answer.text}
        else:
            fields = _fields(answer.text)
            if fields is None:
                raise CannotHold("an answer that is no JSON object of plain fields")
        controls: dict[str, Control] = {name: _control(value) for name, value in fields.items()}
        for name, control in controls.items():
            if self._controls.get(name, control) != control:
                raise CannotHold(f"a field that changes its type ({name})")
        self._controls |= controls
        return [_result(at, name, controls[name], value) for at, (name, value) in enumerate(fields.items())]

    def _regions(self, answer: Message, row: Row) -> list[dict[str, Any]]:
        results: list[dict[str, Any]] = []
        for at, part in enumerate(answer.parts):
            if not isinstance(part, Region):
                raise CannotHold("an answer of another kind than the first row's")
            if part.kind == "span":
                raise CannotHold("spans of time")
            width, height = _png_size(row.images[part.image])
            results.append(_region(at, part, width, height))
        for part in answer.parts:
            if isinstance(part, Region) and part.kind != "span":
                self._controls[part.kind] = part.kind
                self._labels[part.kind][part.label] = None
        return results

    def config(self) -> str:
        """The labelling interface for what was written."""
        source = ' valueList="$image"' if self._several_images else ' value="$image"'
        lines = ["<View>", '  <Text name="question" value="$question"/>', f'  <Image name="image"{source}/>']
        for name, control in self._controls.items():
            lines += self._control_lines(f'name={quoteattr(name)} toName="image"', control)
        return "\n".join([*lines, "</View>", ""])

    def _control_lines(self, attributes: str, control: Control) -> list[str]:
        match control:
            case "number":
                return [f"  <Number {attributes}/>"]
            case "text":
                return [f'  <TextArea {attributes} maxSubmissions="1" editable="true"/>']
            case "texts":
                return [f'  <TextArea {attributes} maxSubmissions="0" editable="true"/>']
        tag = "RectangleLabels" if control == "box" else "KeyPointLabels"
        labels = [f"    <Label value={quoteattr(label)}/>" for label in self._labels[control] if label]
        return [f"  <{tag} {attributes}>", *labels, f"  </{tag}>"]


def _question(message: Message, images: int) -> str:
    *shown, last = message.parts or (Text(""),)
    if (
        not isinstance(last, Text)
        or len(shown) != images
        or not all(isinstance(part, Image) for part in shown)
    ):
        raise CannotHold("a question that does not stand behind its images")
    if not images:
        raise CannotHold("a row without an image")
    return last.text


def _kind_of(answer: Message) -> Kind:
    if any(isinstance(part, Region) for part in answer.parts):
        return "regions"
    return "text" if _fields(answer.text) is None else "json"


def _fields(text: str) -> dict[str, Any] | None:
    """The fields of a JSON object of texts, numbers and lists of texts; None for anything else."""
    try:
        value = parse_strict_json(text)
    except ValueError:
        return None
    if not isinstance(value, dict) or not value:
        return None
    return value if all(_is_plain(each) for each in value.values()) else None


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(each, str) for each in value)
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _control(value: Any) -> Control:
    if isinstance(value, list):
        return "texts"
    return "text" if isinstance(value, str) else "number"


def _result(at: int, name: str, control: Control, value: Any) -> dict[str, Any]:
    said: dict[str, Any] = {"number": value}
    if control != "number":
        said = {"text": value if isinstance(value, list) else [value]}
    kind = "number" if control == "number" else "textarea"
    return {"id": f"r{at}", "type": kind, "from_name": name, "to_name": "image", "value": said}


def _region(at: int, region: Region, width: int, height: int) -> dict[str, Any]:
    percent = [100 * value for value in region.values]
    kind = "rectanglelabels" if region.kind == "box" else "keypointlabels"
    value: dict[str, Any] = {"x": percent[0], "y": percent[1], kind: [region.label] if region.label else []}
    if region.kind == "box":
        value |= {"width": percent[2] - percent[0], "height": percent[3] - percent[1], "rotation": 0}
    else:
        # A point is drawn as a dot, half a percent wide.
        value["width"] = 0.5
    return {
        "id": f"r{at}",
        "type": kind,
        "from_name": region.kind,
        "to_name": "image",
        "item_index": region.image,
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": value,
    }


def _png_size(data: bytes) -> tuple[int, int]:
    """Width and height from a PNG's header (bytes 16 to 24, big-endian)."""
    width, height = struct.unpack(">II", data[16:24])
    return width, height
