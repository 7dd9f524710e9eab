"""Regions to and from the text that a model family writes them in.

A region is stored relative to the upright original (see `sample.Region`), which no resize changes; a family
writes it as 0 to 1000, as percent, or in pixels of the resized image. Coordinates are rounded to the nearest
number that the family can write: no other choice moves an edge less. `least_iou` says what that costs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lensmith.errors import InputError, Problem
from lensmith.sample import REGION_VALUES, Region, RegionKind

Syntax = Literal["json", "box_tokens", "ref_det", "point_tags", "point_list"]
Unit = Literal["relative", "pixel", "percent", "thousand"]
Size = tuple[int, int]
# Far edge of the image in each unit that labels are handed over in; pixels have the image's own.
_FAR: dict[Unit, float] = {"relative": 1.0, "percent": 100.0, "thousand": 1000.0}
# Stored coordinates keep this many decimals: 33.3 % + 66.7 % of float64 is a hair above 1.
_STORED_DECIMALS = 9
# Names under which models and exports write 3-D boxes; none is ever read as something else.
BOX_3D = ("bbox_3d", "box_3d", "cuboid")


@dataclass(frozen=True)
class CoordinateForm:
    """How a family writes regions: data, one constant a family.

    scale: what the image's far edge is written as; None for pixels of the resized image.
    decimals: of a written coordinate. clock: spans as h:mm:ss, else in seconds.
    kinds: which regions it can write. The syntaxes are those of `region_text`.
    """

    syntax: Syntax
    scale: float | None
    decimals: int = 0
    clock: bool = False
    kinds: tuple[RegionKind, ...] = ("box", "point", "span")

    @property
    def step(self) -> float:
        """Distance of two neighbouring numbers that can be written."""
        return 10.0**-self.decimals

    def far(self, size: Size) -> tuple[float, float]:
        """What the far edges (right, bottom) are written as, for an image resized to `size`.

        Raises InputError where the form writes pixels and the size is unknown.
        """
        if self.scale is not None:
            return self.scale, self.scale
        if min(size) <= 0:
            mend = "decode the image first: its size is not known"
            raise InputError("the family writes pixels of the resized image", [Problem("no size", mend=mend)])
        return float(size[0]), float(size[1])


# Model cards: Qwen3-VL relative 0 to 1000; GLM-4.xV 0 to 1000 between box tokens; DeepSeek-OCR 0 to 999 in
# ref/det tags; Molmo points in percent, Molmo2's 0 to 1000 in one list. Qwen2.5-VL wrote pixels of the
# resized image.
JSON_THOUSAND = CoordinateForm("json", 1000)
JSON_PIXELS = CoordinateForm("json", None)
BOX_TOKENS = CoordinateForm("box_tokens", 1000, clock=True)
REF_DET = CoordinateForm("ref_det", 999, kinds=("box",))
POINT_TAGS = CoordinateForm("point_tags", 100, decimals=1, kinds=("point",))
POINT_LIST = CoordinateForm("point_list", 1000, kinds=("point",))
FORMS = (JSON_THOUSAND, JSON_PIXELS, BOX_TOKENS, REF_DET, POINT_TAGS, POINT_LIST)


def to_relative(kind: RegionKind, values: Sequence[float], unit: Unit, size: Size) -> tuple[float, ...]:
    """Values as handed over, in the stored form: relative, 0 to 1; seconds stay seconds.

    `size` is (width, height) in pixels of the image that they were drawn on, needed for unit "pixel" only.
    Nothing is cut to the image: see `region_problems`. Raises InputError where that size is missing.
    """
    if kind == "span":
        return tuple(float(value) for value in values)
    if unit == "pixel":
        if min(size) <= 0:
            raise InputError(
                "pixels without the size of the image that they were drawn on",
                [Problem("the image has no size", mend='give the image "size": [width, height]')],
            )
        far = (float(size[0]), float(size[1]))
    else:
        far = (_FAR[unit], _FAR[unit])
    return tuple(round(value / far[at % 2], _STORED_DECIMALS) for at, value in enumerate(values))


def region_problems(region: Region, images: int) -> list[str]:
    """What is wrong with a stored region of a sample with so many images, in plain words."""
    if len(region.values) != REGION_VALUES[region.kind]:
        wanted = REGION_VALUES[region.kind]
        return [f"a {region.kind} has {wanted} numbers, not {len(region.values)}"]
    if not all(math.isfinite(value) for value in region.values):
        return [f"the {region.kind} has a number that is not finite"]
    problems: list[str] = []
    if not 0 <= region.image < images:
        problems.append(f"the {region.kind} lies in image {region.image}, the row has {images} (from 0)")
    if region.kind == "span":
        start, end = region.values
        if start < 0 or start >= end:
            problems.append(f"the span runs from {start:g} to {end:g} seconds")
        return problems
    if not all(0 <= value <= 1 for value in region.values):
        shown = ", ".join(f"{value:g}" for value in region.values)
        problems.append(f"the {region.kind} ({shown}) leaves the image, which runs from 0 to 1")
    if region.kind == "box":
        x0, y0, x1, y1 = region.values
        if x0 >= x1 or y0 >= y1:
            problems.append(f"the box is empty or turned over: x {x0:g} to {x1:g}, y {y0:g} to {y1:g}")
    return problems


def written_values(region: Region, form: CoordinateForm, size: Size = (0, 0)) -> tuple[float, ...]:
    """The numbers that `form` writes for a box or point, in its own unit, rounded as it rounds.

    `size` is the resized image's (width, height) in pixels, for a form in pixels. A box too small to be told
    apart keeps one step of width. Raises InputError for a kind that the form cannot write.
    """
    if region.kind not in form.kinds:
        known = ", ".join(form.kinds)
        raise InputError(f"the family writes no {region.kind}", [Problem("cannot be written", mend=known)])
    if region.kind == "span":
        return region.values
    far = form.far(size)
    numbers = [_nearest(value * far[at % 2], form) for at, value in enumerate(region.values)]
    if region.kind == "box":
        for low, high in ((0, 2), (1, 3)):
            if numbers[low] == numbers[high]:
                if numbers[high] + form.step <= far[low]:
                    numbers[high] = _nearest(numbers[high] + form.step, form)
                else:
                    numbers[low] = _nearest(numbers[low] - form.step, form)
    return tuple(numbers)


def read_values(
    kind: RegionKind, numbers: Sequence[float], form: CoordinateForm, size: Size = (0, 0)
) -> tuple[float, ...]:
    """The inverse of `written_values`: stored values of the numbers that a family wrote."""
    if kind == "span":
        return tuple(float(number) for number in numbers)
    far = form.far(size)
    return tuple(number / far[at % 2] for at, number in enumerate(numbers))


def least_iou(region: Region, form: CoordinateForm, size: Size = (0, 0)) -> float:
    """The least IoU that a box can have with itself after it was written in `form` and read back.

    With edges of w and h steps it is (1 - 1/w) (1 - 1/h), 0 for an edge below one step. Proof: rounding moves
    each edge by at most half a step, so along one axis it cuts a off the length L and adds b, a + b <= 1
    step; what is shared over what is covered is at least (L - a) / (L + b) = 1 - (a + b) / (L + b)
    >= 1 - 1/L, and the IoU of two boxes is at least the product over their axes. A box whose four edges
    each move inwards by half a step reaches it. So whole numbers from 0 to 1000 keep 0.99 for boxes of a
    fifth of both edges (4 % of the image) or more, and no rounding keeps it at 1 % (a square of 100 steps):
    at half-way edges every choice of neighbours gives 0.981 or less.
    """
    far = form.far(size)
    x0, y0, x1, y1 = region.values
    steps = ((x1 - x0) * far[0] / form.step, (y1 - y0) * far[1] / form.step)
    return math.prod(max(0.0, 1 - 1 / each) if each > 0 else 0.0 for each in steps)


def box_iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes (x0, y0, x1, y1) in the same unit; 0 where both are empty."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    shared = width * height
    covered = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / covered if covered > 0 else 0.0


def _nearest(value: float, form: CoordinateForm) -> float:
    return round(value, form.decimals)
