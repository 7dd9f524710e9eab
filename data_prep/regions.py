"""Places in images as people hand them over: inside the decoded image, and such as the family can write."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby

from data_prep.flag import Flag
from data_prep.refusal import Flaw, quoted
from lensmith.coordinates import CoordinateForm, region_problems
from lensmith.sample import Region, Sample, Text

_OUTSIDE = "draw it again; x and y run from the left and top edge, 0 to 1 of the upright image"
_NUMBER = r"[-+]?[0-9]*\.?[0-9]+"
# The names that tools and models give to places: of two numbers at least, not the id of a box.
_TYPED = re.compile(
    r"\b(bbox(?:_2d)?|box_2d|bounding_?box|point_2d)[\"']?\s{0,9}[:=]\s{0,9}"
    rf"[\[({{]{{1,9}}\s{{0,9}}({_NUMBER}(?:\s{{0,9}},\s{{0,9}}{_NUMBER}){{1,7}})",
    re.IGNORECASE,
)


def region_flaws(sample: Sample, form: CoordinateForm) -> Iterator[Flaw]:
    """Every region of the row that lies outside its image, is empty, or that the family cannot write."""
    for number, message in enumerate(sample.messages, start=1):
        for kind, run in groupby(message.parts, key=type):
            if kind is not Region:
                continue
            regions = [part for part in run if isinstance(part, Region)]
            for region in regions:
                for problem in _problems(sample, region):
                    yield Flaw("region", f"message {number}: {problem}", _OUTSIDE)
                if region.kind not in form.kinds:
                    mend = f"this model family writes {', '.join(form.kinds)} only"
                    yield Flaw("region", f"message {number} holds a {region.kind}", mend)
                if not region.label.isprintable() or "<|" in region.label:
                    what = f"message {number}: the label {quoted(region.label)} holds a line break or a tag"
                    yield Flaw("region", what, "write it in one line of plain characters")
            if len({region.image for region in regions}) > 1:
                what = f"message {number} lists places in several images without a word between them"
                yield Flaw("region", what, "say in words which image each list is of")


def _problems(sample: Sample, region: Region) -> list[str]:
    if region.kind != "span" or not sample.videos:
        return region_problems(region, len(sample.stills))
    problems = region_problems(region, len(sample.videos))
    # 0 where the video could not be opened, which is a flaw of its own.
    if not problems and (lasts := sample.videos[region.image].duration) and region.values[1] > lasts:
        problems = [f"the span ends at {region.values[1]:g} seconds, its video at {lasts:g}"]
    return problems


def region_flags(sample: Sample, form: CoordinateForm) -> Iterator[Flag]:
    """One flag for a last message with coordinates in its text, whose unit nobody knows."""
    last = sample.messages[-1:]
    texts = [part.text for message in last for part in message.parts if isinstance(part, Text)]
    found = [match for text in texts for match in _TYPED.finditer(text)]
    if not found:
        return
    largest = max(float(number) for match in found for number in match[2].split(","))
    what = f"the answer types places as text, {quoted(found[0].group())}, with numbers up to {largest:g}"
    counts = "pixels of the resized image" if form.scale is None else f"0 to {form.scale:g}"
    mend = (
        f"hand them over as boxes or points: as text they are taught as they stand; the model counts {counts}"
    )
    yield Flag("typed_places", what, mend)


def size_flaws(sample: Sample, sizes: Sequence[tuple[int, int]]) -> Iterator[Flaw]:
    """Images that are not the ones that regions were drawn on.

    sizes: (width, height) in pixels of the row's decoded, upright images, in order; (0, 0) for one that could
    not be decoded. A drawing on a reduced copy, of the same shape to a pixel, is good: places are relative.
    """
    for image, (width, height) in zip(sample.images, sizes, strict=True):
        drawn_width, drawn_height = image.size
        if not width or not drawn_width or _same_shape(image.size, (width, height)):
            continue
        what = f"{quoted(image.path)} is {width} x {height} pixels upright"
        if _same_shape((drawn_height, drawn_width), (width, height)):
            mend = "the file says that it is to be turned: draw on the upright image"
        else:
            mend = "give the image that was labelled, or draw again on this one"
        yield Flaw("image_size", f"{what}, its places were drawn on {drawn_width} x {drawn_height}", mend)


def _same_shape(drawn: tuple[int, int], decoded: tuple[int, int]) -> bool:
    """Equal, or scaled by one factor with each edge off by less than a pixel, however it was rounded."""
    for small, large in ((drawn, decoded), (decoded, drawn)):
        least = max((small[0] - 1) / large[0], (small[1] - 1) / large[1])
        if least <= min((small[0] + 1) / large[0], (small[1] + 1) / large[1]):
            return True
    return False
