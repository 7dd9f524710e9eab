"""COCO: one JSON file with `images`, `annotations` and, for detection, `categories`.

A detection row answers with the image's boxes as regions, each with its category as label; a captions row
with the caption. Masks and keypoints are not read. Boxes are [x, y, width, height] in pixels of an image
of the size that `images` states (cocodataset.org, "Data format").
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeGuard

from pydantic import Field

from data_prep.refusal import Flaw, quoted
from data_prep.sources.coco_index import CocoIndex, Labelled, numbered
from data_prep.sources.folder import FolderSource, file_facts
from data_prep.sources.source import Found
from lensmith.errors import InputError, Problem
from lensmith.sample import Image, Message, Region, Sample, Text
from lensmith.section import Section

DETECTION_PROMPT = "Find every object. Give the box and the category of each."
CAPTION_PROMPT = "Describe the image."


class CocoOptions(Section):
    """How a COCO file is read."""

    image_root: str = Field(default="", description="folder of the images, relative to the JSON file's")
    task: Literal["auto", "detection", "captions"] = Field(
        default="auto", description="what is learned; auto: captions where the first annotation has one"
    )
    prompt: str = Field(
        default="", description="the question; {categories} stands for the names of all categories"
    )
    group: str = Field(
        default="", description="field of `images` that is a row's group; the file's name if empty"
    )
    crowd: Literal["refuse", "drop", "keep"] = Field(
        default="refuse", description="boxes around many objects at once (iscrowd)"
    )
    no_area: Literal["refuse", "drop"] = Field(default="refuse", description="boxes without width or height")
    outside: Literal["refuse", "clip"] = Field(
        default="refuse", description="boxes that reach out of the image; one wholly outside is refused"
    )
    unlabelled: Literal["refuse", "skip", "answer"] = Field(
        default="refuse",
        description="images without annotations: refused, not read, or answered with `nothing`",
    )
    nothing: str = Field(
        default="There are none.", min_length=1, description="the answer where nothing is there"
    )
    captions: Literal["first", "each"] = Field(
        default="first", description="of several captions; `each` makes rows that contradict one another"
    )


class Coco(FolderSource):
    """Detection or captions of a COCO file; rows in the order of its images."""

    format = "coco"
    options_kind = CocoOptions

    def __init__(self, path: Path, options: CocoOptions | None = None) -> None:
        self.options = options or CocoOptions()
        super().__init__(path.parent / self.options.image_root)
        self.path = path
        self.name = path.name

    def facts(self) -> dict[str, Any]:
        return file_facts(self.path)

    def rows(self) -> Iterator[Found]:
        """A row for each image, or for each caption; annotations of no image come last, with their flaw."""
        with CocoIndex(self.path) as index:
            task = self.options.task
            if task == "auto":
                task = "captions" if index.has_captions else "detection"
            if task == "detection" and not index.categories:
                mend = "export it with its categories, or set task: captions"
                raise InputError(f"{self.path} cannot be read", [Problem("it has no categories", mend=mend)])
            for labelled in index.images():
                yield from self._image_rows(labelled, task, index.categories)
            for place in index.orphans():
                mend = "add the image to `images`, or remove the annotation"
                flaw = Flaw("schema", "the annotation's image_id is none of the file's images", mend)
                yield Found(f"{self.name} {place}", "", None, (flaw,))

    def _image_rows(self, labelled: Labelled, task: str, categories: Mapping[int, str]) -> Iterator[Found]:
        place = f"{self.name} {labelled.place}"
        flaws, image, group = self._image(labelled)
        row = str(labelled.id) if _named(labelled.id) else ""
        if image is None:
            yield Found(place, row, None, tuple(flaws))
        elif not labelled.annotations and self.options.unlabelled == "refuse":
            mend = "label it, or say in the options what unlabelled images mean"
            yield Found(place, row, None, (Flaw("empty_answer", "the image has no annotation", mend),))
        elif not labelled.annotations and self.options.unlabelled == "skip":
            return
        elif not labelled.annotations:
            text = self._prompt(task, categories)
            yield _found(place, row, group, image, text, (Text(self.options.nothing),), {})
        elif task == "captions":
            yield from self._captions(labelled, place, group, image)
        else:
            yield self._detection(labelled, place, group, image, categories)

    def _image(self, labelled: Labelled) -> tuple[list[Flaw], Image | None, str]:
        record = labelled.record
        flaws: list[Flaw] = []
        if labelled.twice:
            flaws.append(Flaw("schema", f"the image id {labelled.id} stands twice", "give each its own"))
        if not _named(labelled.id):
            flaws.append(Flaw("schema", "the image's id is missing", "give every image an id of its own"))
        path = record.get("file_name")
        if not isinstance(path, str) or not path:
            flaws.append(Flaw("schema", "file_name is missing", "name the image's file"))
            return flaws, None, ""
        width, height = record.get("width"), record.get("height")
        if not (_positive(width) and _positive(height)):
            flaws.append(Flaw("schema", "width or height is missing", "give the image's size in pixels"))
        group = record.get(self.options.group) if self.options.group else path
        if not isinstance(group, str | int) or not str(group).strip():
            flaws.append(Flaw("schema", f"{self.options.group} is missing", "say what the image belongs to"))
        if flaws or not (_positive(width) and _positive(height)):
            return flaws, None, ""
        return flaws, Image(path, size=(width, height)), str(group)

    def _prompt(self, task: str, categories: Mapping[int, str]) -> str:
        text = self.options.prompt or (CAPTION_PROMPT if task == "captions" else DETECTION_PROMPT)
        return text.replace("{categories}", ", ".join(categories.values()))

    def _captions(self, labelled: Labelled, place: str, group: str, image: Image) -> Iterator[Found]:
        chosen = labelled.annotations if self.options.captions == "each" else labelled.annotations[:1]
        for annotation in chosen:
            row = str(labelled.id)
            if self.options.captions == "each":
                row += f"-{annotation.get('id')}"
            text = annotation.get("caption")
            if not isinstance(text, str) or not text.strip():
                flaw = Flaw("empty_answer", f"annotation {annotation.get('id')} has no caption", "write it")
                yield Found(place, row, None, (flaw,))
            else:
                answer = (Text(text.strip()),)
                yield _found(place, row, group, image, self._prompt("captions", {}), answer, {})

    def _detection(
        self, labelled: Labelled, place: str, group: str, image: Image, categories: Mapping[int, str]
    ) -> Found:
        flaws: list[Flaw] = []
        regions: list[Region] = []
        left_out: list[dict[str, Any]] = []
        for annotation in labelled.annotations:
            told = self._region(annotation, image.size, categories)
            if isinstance(told, Flaw):
                flaws.append(told)
            elif isinstance(told, str):
                left_out.append({"annotation": annotation.get("id"), "why": told})
            else:
                regions.append(told)
        if flaws:
            return Found(place, str(labelled.id), None, tuple(flaws))
        if not regions and self.options.unlabelled != "answer":
            flaw = Flaw(
                "empty_answer", "every box of the image is dropped by the options", "label its objects"
            )
            return Found(place, str(labelled.id), None, (flaw,))
        meta = {"left_out": left_out} if left_out else {}
        answer: tuple[Text | Region, ...] = tuple(regions) or (Text(self.options.nothing),)
        prompt = self._prompt("detection", categories)
        return _found(place, str(labelled.id), group, image, prompt, answer, meta)

    def _region(
        self, annotation: Mapping[str, Any], size: tuple[int, int], categories: Mapping[int, str]
    ) -> Region | Flaw | str:
        """The box; a Flaw where it cannot be used; why, where the options drop it."""
        name = f"annotation {annotation.get('id')}"
        category = annotation.get("category_id")
        label = categories.get(category) if isinstance(category, int) else None
        if label is None:
            mend = "add it to `categories`, or correct the annotation"
            return Flaw("schema", f"{name}: its category {quoted(str(category))} is not defined", mend)
        if annotation.get("iscrowd") in (1, True) and self.options.crowd != "keep":
            if self.options.crowd == "drop":
                return "crowd"
            mend = "box the objects one by one, or set crowd: drop in the options"
            return Flaw("schema", f"{name} is one box around many objects (iscrowd)", mend)
        box = annotation.get("bbox")
        if not isinstance(box, list) or len(box) != 4 or not all(_finite(value) for value in box):
            return Flaw(
                "schema", f"{name}: bbox is not four numbers", "write [x, y, width, height] in pixels"
            )
        return self._placed(name, label, (box[0], box[1], box[2], box[3]), size)

    def _placed(
        self, name: str, label: str, box: tuple[float, float, float, float], size: tuple[int, int]
    ) -> Region | Flaw | str:
        x, y, wide, high = box
        width, height = size
        if wide <= 0 or high <= 0:
            if self.options.no_area == "drop":
                return "no area"
            mend = "draw it again, or set no_area: drop in the options"
            return Flaw("schema", f"{name}: the box has no area ({wide:g} x {high:g} pixels)", mend)
        corners = (x, y, x + wide, y + high)
        said = f"the box {[round(corner, 2) for corner in corners]} of an image of {width} x {height}"
        if x >= width or y >= height or x + wide <= 0 or y + high <= 0:
            return Flaw("schema", f"{name}: {said} lies outside of it", "check the image's size in the file")
        if min(x, y) < 0 or x + wide > width or y + high > height:
            # Sums of decimal fractions miss the edge by less than this, in pixels.
            slips = max(-x, -y, x + wide - width, y + high - height) < 1e-3
            if not slips and self.options.outside == "refuse":
                mend = "draw it inside the image, or set outside: clip in the options"
                return Flaw("schema", f"{name}: {said} reaches out of it", mend)
        scaled = (x / width, y / height, (x + wide) / width, (y + high) / height)
        return Region("box", tuple(min(1.0, max(0.0, value)) for value in scaled), label)


def _positive(value: Any) -> TypeGuard[int]:
    return numbered(value) and value > 0


def _named(value: Any) -> bool:
    return numbered(value) or (isinstance(value, str) and bool(value.strip()) and value.isprintable())


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _found(
    place: str,
    row: str,
    group: str,
    image: Image,
    prompt: str,
    answer: tuple[Text | Region, ...],
    meta: dict[str, Any],
) -> Found:
    texts = [row, group, image.path, prompt]
    texts += [part.text if isinstance(part, Text) else part.label for part in answer]
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        flaw = Flaw("not_utf8", "holds half a character (a lone \\ud... escape)", "export it again")
        return Found(place, row, None, (flaw,))
    messages = (Message("user", (image, Text(prompt))), Message("assistant", answer))
    return Found(place, row, Sample(row, group, messages, meta))
