"""The text of regions, one syntax a family: written for training and prompts, read from model output.

    json        [{"bbox_2d": [12, 30, 480, 512], "label": "stamp"}, {"point_2d": [7, 9], "label": "dot"},
                 {"start": 1.5, "end": 4, "label": "signs"}]
    box_tokens  stamp<|begin_of_box|>[12, 30, 480, 512]<|end_of_box|>
    ref_det     <|ref|>stamp<|/ref|><|det|>[[12, 30, 480, 511]]<|/det|>
    point_tags  <point x="0.7" y="0.9" alt="dot">dot</point>, several of one label <points x1= y1= x2= ...>
    point_list  <points coords="1 1 007 009 2 512 030">dot</points>: image from 1, then number, x, y of each

What is read is judged as strictly as what people hand over: a region is in the image or it is `unread`.
"""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from lensmith.coordinates import BOX_3D, CoordinateForm, Size, read_values, region_problems, written_values
from lensmith.errors import InputError, Problem
from lensmith.sample import REGION_VALUES, Region, RegionKind

BEGIN_BOX, END_BOX = "<|begin_of_box|>", "<|end_of_box|>"
_SHOWN = 80
_JSON_KEYS: dict[str, RegionKind] = {"bbox_2d": "box", "point_2d": "point"}
_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
_CLOCK = re.compile(r"(?:(\d+):)?(\d+):(\d+(?:\.\d+)?)")
_GROUP = re.compile(r"[\[(<{]\s*([^\[\](){}<>]*?)\s*[\])>}]")
_BOX_TOKENS = re.compile(
    rf"(?P<label>[^\n]*?){re.escape(BEGIN_BOX)}(?P<body>.*?)(?:{re.escape(END_BOX)}|$)", re.DOTALL
)
_REF_DET = re.compile(
    r"<\|ref\|>(?P<label>.*?)<\|/ref\|>\s*<\|det\|>(?P<body>.*?)(?:<\|/det\|>|$)", re.DOTALL
)
_POINTS = re.compile(r"<points?\b(?P<attributes>[^>]*)>(?:(?P<label>[^<]*)</points?>)?")
_POINT_LISTS = re.compile(
    r"""<points?\b[^>]*?coords\s*=\s*["'](?P<coords>[^"']*)["'][^>]*>(?:(?P<label>[^<]*)</points?>)?"""
)
_ATTRIBUTE = re.compile(r"""([a-z]+)(\d*)\s*=\s*(?:"([^"]*)"|'([^']*)')""")


@dataclass(frozen=True)
class Read:
    """What a text says of places: the regions, and each piece that looked like one and is none, with why."""

    regions: tuple[Region, ...]
    unread: tuple[tuple[str, str], ...] = ()


def write_regions(regions: Sequence[Region], form: CoordinateForm, size: Size = (0, 0)) -> str:
    """Regions of one image as text of the form; `size` as in `coordinates.written_values`.

    No family writes which image a region lies in: the words around it say so. Raises InputError for a kind
    that the form cannot write and for a label that would break its syntax.
    """
    rows = [(region, written_values(region, form, size)) for region in regions]
    match form.syntax:
        case "json":
            entries = [_json_entry(region, numbers, form) for region, numbers in rows]
            return json.dumps(entries, ensure_ascii=False)
        case "box_tokens":
            return "\n".join(
                f"{_plain_label(region)}{BEGIN_BOX}[{_listed(region, numbers, form)}]{END_BOX}"
                for region, numbers in rows
            )
        case "ref_det":
            return "\n".join(
                f"<|ref|>{_plain_label(region)}<|/ref|><|det|>[[{_listed(region, numbers, form)}]]<|/det|>"
                for region, numbers in rows
            )
        case "point_tags":
            named = groupby(rows, key=lambda row: row[0].label)
            return "\n".join(_point_tag(label, [n for _, n in each], form) for label, each in named)
        case "point_list":
            named = groupby(rows, key=lambda row: (row[0].label, row[0].image))
            return "\n".join(_point_list(*key, [n for _, n in each]) for key, each in named)


def parse_regions(text: str, form: CoordinateForm, size: Size = (0, 0), image: int = 0) -> Read:
    """Every region that `text`, a model's or a person's, gives in the form, in order; labels stripped.

    Fences, spaces, words around and between, a missing end and several boxes behind one label are taken.
    What looks like a region and is none (another count of numbers, out of the image, empty, 3-D) is
    `unread`. `image` is the one that the regions are said to lie in.
    """
    found: Iterable[tuple[str, RegionKind | str, str, Sequence[Any]]]
    match form.syntax:
        case "json":
            found = _read_json(text)
        case "box_tokens":
            found = _read_listed(text, _BOX_TOKENS if BEGIN_BOX in text else None)
        case "ref_det":
            found = _read_listed(text, _REF_DET)
        case "point_tags":
            found = _read_points(text)
        case "point_list":
            found = _read_point_lists(text)
    regions: list[Region] = []
    unread: list[tuple[str, str]] = []
    for source, kind, label, values in found:
        region = _region(kind, label, values, form, size, image)
        if isinstance(region, Region):
            regions.append(region)
        else:
            unread.append((source[:_SHOWN], region))
    return Read(tuple(regions), tuple(unread))


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss, with up to three decimals where there are any."""
    thousandths = round(seconds * 1000)
    minutes, rest = divmod(thousandths, 60_000)
    whole, part = divmod(rest, 1000)
    decimals = f".{part:03d}".rstrip("0") if part else ""
    return f"{minutes // 60}:{minutes % 60:02d}:{whole:02d}{decimals}"


def _number(value: float, form: CoordinateForm) -> str:
    return f"{value:.{form.decimals}f}"


def _json_entry(region: Region, numbers: Sequence[float], form: CoordinateForm) -> dict[str, Any]:
    if region.kind == "span":
        start, end = (clock(each) if form.clock else _plain_number(each) for each in numbers)
        entry: dict[str, Any] = {"start": start, "end": end}
    else:
        key = "bbox_2d" if region.kind == "box" else "point_2d"
        entry = {key: [int(each) if form.decimals == 0 else each for each in numbers]}
    return entry | ({"label": region.label} if region.label else {})


def _plain_number(value: float) -> float | int:
    return int(value) if value == int(value) else round(value, 3)


def _listed(region: Region, numbers: Sequence[float], form: CoordinateForm) -> str:
    if region.kind == "span":
        return ", ".join(clock(each) if form.clock else f"{_plain_number(each)}" for each in numbers)
    return ", ".join(_number(each, form) for each in numbers)


def _plain_label(region: Region) -> str:
    label = region.label
    if "\n" in label or "<|" in label:
        raise InputError(
            f"the label {label[:_SHOWN]!r} cannot be written",
            [Problem("it holds a line break or a tag", mend="write it in one line, without <|")],
        )
    return label


def _point_tag(label: str, points: Sequence[Sequence[float]], form: CoordinateForm) -> str:
    single = len(points) == 1
    places = " ".join(
        f'x{"" if single else at}="{_number(x, form)}" y{"" if single else at}="{_number(y, form)}"'
        for at, (x, y) in enumerate(points, start=1)
    )
    tag, shown = ("point" if single else "points"), html.escape(label, quote=True)
    return f'<{tag} {places} alt="{shown}">{shown}</{tag}>'


def _point_list(label: str, image: int, points: Sequence[Sequence[float]]) -> str:
    places = " ".join(f"{at} {int(x):03d} {int(y):03d}" for at, (x, y) in enumerate(points, start=1))
    return f'<points coords="{image + 1} {places}">{html.escape(label, quote=False)}</points>'


_Raw = tuple[str, RegionKind | str, str, Sequence[Any]]


def _read_json(text: str) -> Iterator[_Raw]:
    """Every object with a region's key, wherever it stands: fences, words and a list cut short do no harm."""
    decoder, at = json.JSONDecoder(), 0
    while (start := text.find("{", at)) >= 0:
        try:
            value, at = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            at = start + 1
            if text[at : at + 12].lstrip().startswith(('"bbox_', '"point_')):
                yield text[start:], "it is not whole JSON", "", ()
            continue
        yield from _json_regions(value, text[start:at])


def _json_regions(value: Any, source: str) -> Iterator[_Raw]:
    waiting = [value]
    while waiting:
        each = waiting.pop(0)
        if isinstance(each, list):
            waiting = [*each, *waiting]
        elif isinstance(each, dict):
            label = each.get("label", each.get("text_content", ""))
            name = label if isinstance(label, str) else json.dumps(label, ensure_ascii=False)
            keys = [key for key in _JSON_KEYS if key in each]
            for key in keys:
                values = each[key]
                yield source, _JSON_KEYS[key], name, values if isinstance(values, list) else ()
            if any(key in each for key in BOX_3D):
                yield source, "a 3-D box is not read", name, ()
            elif "start" in each and "end" in each:
                yield source, "span", name, (each["start"], each["end"])
            elif not keys:
                waiting = [*each.values(), *waiting]


def _read_listed(text: str, tags: re.Pattern[str] | None) -> Iterator[_Raw]:
    """Bracketed number lists: between the tags, or a line at a time where a decoder dropped the tags."""
    if tags is None:
        pieces = [
            (line[: line.find("[")].strip(" \t:*-"), line, line) for line in text.splitlines() if "[" in line
        ]
    else:
        pieces = [(each["label"], each["body"], each[0]) for each in tags.finditer(text)]
    for label, body, source in pieces:
        groups = [group[1] for group in _GROUP.finditer(body)] or [body]
        for group in groups:
            values = [part for part in re.split(r"[,;\s]+", group) if part]
            kind: RegionKind | str
            if any(_CLOCK.fullmatch(part) for part in values):
                kind = "span"
            elif len(values) == REGION_VALUES["box"]:
                kind = "box"
            elif len(values) == REGION_VALUES["point"]:
                kind = "point"
            else:
                kind = f"{len(values)} numbers are neither a box nor a point"
            yield source, kind, label, values


def _read_points(text: str) -> Iterator[_Raw]:
    for tag in _POINTS.finditer(text):
        places: dict[str, dict[str, str]] = {}
        name = tag["label"] or ""
        for attribute, number, double, single in _ATTRIBUTE.findall(tag["attributes"]):
            if attribute == "alt":
                name = double or single or name
            elif attribute in ("x", "y"):
                places.setdefault(number, {})[attribute] = double or single
        for place in places.values():
            yield tag[0], "point", html.unescape(name).strip(), tuple(place.get(axis) for axis in "xy")
        if not places:
            yield tag[0], "it names no place", "", ()


def _read_point_lists(text: str) -> Iterator[_Raw]:
    """Groups of an image's number and three numbers a point; several groups are told apart by their ends."""
    for tag in _POINT_LISTS.finditer(text):
        label = html.unescape(tag["label"] or "").strip()
        for group in re.split(r"[\t:,;]", tag["coords"]):
            numbers = group.split()
            if not numbers or len(numbers) % 3 != 1:
                yield tag[0], f"{len(numbers)} numbers are not an image and points", label, ()
                continue
            for at in range(1, len(numbers), 3):
                yield tag[0], "point", label, numbers[at + 1 : at + 3]


def _region(
    kind: RegionKind | str, label: str, values: Sequence[Any], form: CoordinateForm, size: Size, image: int
) -> Region | str:
    """The region, or why it is none."""
    match kind:
        case "box" | "point" | "span":
            wanted: RegionKind = kind
        case _:
            return kind
    if wanted not in form.kinds:
        return f"the family writes no {wanted}"
    numbers = [seconds_of(each) if wanted == "span" else _coordinate(each) for each in values]
    if len(numbers) != REGION_VALUES[wanted]:
        return f"a {wanted} has {REGION_VALUES[wanted]} numbers, not {len(numbers)}"
    known = [each for each in numbers if each is not None]
    if len(known) != len(numbers):
        return "a coordinate is not a number"
    region = Region(wanted, read_values(wanted, known, form, size), label.strip(), image)
    return next(iter(region_problems(region, image + 1)), region)


def _coordinate(value: Any) -> float | None:
    if isinstance(value, str) and re.fullmatch(_NUMBER, value.strip()):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    # An integer beyond float64 is no place either.
    return float(value) if abs(value) < 1e300 and math.isfinite(value) else None


def seconds_of(value: Any) -> float | None:
    """Seconds of a time as people and models write it, a number, "12.5 s" or h:mm:ss; else None."""
    if isinstance(value, str) and (parts := _CLOCK.fullmatch(value.strip())):
        return int(parts[1] or 0) * 3600 + int(parts[2]) * 60 + float(parts[3])
    return _coordinate(value.strip().removesuffix("s").rstrip() if isinstance(value, str) else value)
