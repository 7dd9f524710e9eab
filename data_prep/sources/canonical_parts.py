"""The parts of a message and the further fields of a row in Lensmith's own format, as people write them.

    {"type": "image", "path": "images/1.png", "size": [1280, 960]}     {"type": "video", "path": "a.mp4"}
    {"type": "box", "xyxy": [12, 30, 480, 512], "unit": "pixel", "label": "stamp", "image": 0}
    {"type": "point", "xy": [0.25, 0.5]}            {"type": "span", "seconds": [1.5, "0:01:04"]}
    {"type": "thinking", "text": "..."}             {"type": "tool_call", "name": "zoom", "arguments": {}}

unit is relative (0 to 1, the default), pixel of the image's size, percent, or thousand (0 to 1000). Places
are turned into the one stored form here; whether they lie in the image is `data_prep.regions`' to say.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from data_prep.refusal import Flaw
from lensmith.coordinates import BOX_3D, Unit, to_relative
from lensmith.region_text import seconds_of
from lensmith.sample import Image, Origin, Part, Region, RegionKind, Text, Thinking, ToolCall, Video

Edge = Annotated[int, Field(ge=1, le=1_000_000)]


class Strict(BaseModel):
    """Unknown keys are errors, values are not coerced."""

    model_config = ConfigDict(extra="forbid", strict=True)


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _as_seconds(value: Any) -> Any:
    """Times as h:mm:ss in seconds; all else as it is."""
    if not isinstance(value, list):
        return value
    read = [seconds_of(each) if isinstance(each, str) else each for each in value]
    return tuple(each if known is None else known for each, known in zip(value, read, strict=True))


def _no_3d(value: Any) -> Any:
    if isinstance(value, dict) and value.get("type") in BOX_3D:
        raise ValueError("3-D boxes are not supported: give the box in the image")
    return value


class ImagePart(Strict):
    """An image; `size` is (width, height) in pixels of what regions were drawn on."""

    type: Literal["image"]
    path: str
    size: Annotated[tuple[Edge, Edge] | None, BeforeValidator(_as_tuple)] = None

    def part(self) -> Image:
        return Image(self.path, size=self.size or (0, 0))


class VideoPart(Strict):
    """A video, of which frames are taken as the recipe's data.video says."""

    type: Literal["video"]
    path: str

    def part(self) -> Video:
        return Video(self.path)


class TextPart(Strict):
    """Text."""

    type: Literal["text"]
    text: str

    def part(self) -> Text:
        return Text(self.text)


class ThinkingPart(Strict):
    """Reasoning before an assistant's answer."""

    type: Literal["thinking"]
    text: str

    def part(self) -> Thinking:
        return Thinking(self.text)


class ToolCallPart(Strict):
    """A call of a tool; images and places in its arguments as `lensmith.rendering` says."""

    type: Literal["tool_call"]
    name: str
    arguments: dict[str, Any] = Field(default_factory=dict)

    def part(self) -> ToolCall:
        return ToolCall(self.name, self.arguments)


class _Place(Strict):
    label: str = ""
    image: Annotated[int, Field(ge=0)] = 0


class BoxPart(_Place):
    """A box: left, top, right, bottom."""

    type: Literal["box"]
    xyxy: Annotated[tuple[float, float, float, float], BeforeValidator(_as_tuple)]
    unit: Unit = "relative"


class PointPart(_Place):
    """A point: x, y."""

    type: Literal["point"]
    xy: Annotated[tuple[float, float], BeforeValidator(_as_tuple)]
    unit: Unit = "relative"


class SpanPart(_Place):
    """A stretch of a video: start and end in seconds, or as h:mm:ss."""

    type: Literal["span"]
    seconds: Annotated[tuple[float, float], BeforeValidator(_as_seconds)]


PlacePart = BoxPart | PointPart | SpanPart
CanonicalPart = Annotated[
    Annotated[
        ImagePart | VideoPart | TextPart | BoxPart | PointPart | SpanPart | ThinkingPart | ToolCallPart,
        Field(discriminator="type"),
    ],
    BeforeValidator(_no_3d),
]
PARTS: dict[str, type[Strict]] = {
    "image": ImagePart,
    "video": VideoPart,
    "text": TextPart,
    "box": BoxPart,
    "point": PointPart,
    "span": SpanPart,
    "thinking": ThinkingPart,
    "tool_call": ToolCallPart,
}


def _plain(value: str) -> str:
    if not value.isprintable():
        raise ValueError("holds control characters")
    return value


Words = Annotated[str, AfterValidator(_plain)]


class OriginField(Strict):
    """The row field `origin`: where the row comes from and who labelled it, as far as anyone says."""

    source: Words = ""
    licence: Words = ""
    consent: Words = ""
    labeller: Words = ""
    guideline: Words = ""
    labelled_at: Words = ""

    def origin(self) -> Origin:
        return Origin(**self.model_dump())


def sample_parts(
    parts: Sequence[CanonicalPart], images: Sequence[ImagePart], where: str
) -> tuple[tuple[Part, ...], list[Flaw]]:
    """A message's parts as the sample holds them, and a flaw for each place that cannot be worked out.

    images: all of the row, in order: a place in pixels is relative to the `size` of the image that it names.
    where: how a flaw names the message ("messages[1]").
    """
    made: list[Part] = []
    flaws: list[Flaw] = []
    for number, part in enumerate(parts):
        if not isinstance(part, (BoxPart, PointPart, SpanPart)):
            made.append(part.part())
            continue
        problem = next(_place_problems(part, images), None)
        if problem:
            what, mend = problem
            flaws.append(Flaw("region", f"{where}.content[{number}]: {what}", mend))
        else:
            made.append(_region(part, images))
    return tuple(made), flaws


def _place_problems(part: PlacePart, images: Sequence[ImagePart]) -> Iterator[tuple[str, str]]:
    if isinstance(part, SpanPart) or part.unit != "pixel":
        return
    if part.image >= len(images):
        yield f"it lies in image {part.image}, the row has {len(images)} (from 0)", "correct its image"
    elif images[part.image].size is None:
        mend = 'give the image "size": [width, height], or the place in another unit'
        yield f"pixels of image {part.image}, whose size is not given", mend


def _region(part: PlacePart, images: Sequence[ImagePart]) -> Region:
    kind: RegionKind = part.type
    if isinstance(part, SpanPart):
        return Region(kind, part.seconds, part.label, part.image)
    size = images[part.image].size if part.unit == "pixel" else None
    numbers = part.xyxy if isinstance(part, BoxPart) else part.xy
    return Region(kind, to_relative(kind, numbers, part.unit, size or (0, 0)), part.label, part.image)
