"""Regions keep their place through every form and resize; what rounding costs is bounded and said."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lensmith.coordinates import (
    BOX_TOKENS,
    FORMS,
    JSON_PIXELS,
    JSON_THOUSAND,
    POINT_LIST,
    POINT_TAGS,
    REF_DET,
    CoordinateForm,
    Unit,
    box_iou,
    least_iou,
    read_values,
    region_problems,
    to_relative,
    written_values,
)
from lensmith.errors import InputError
from lensmith.region_text import clock, parse_regions, write_regions
from lensmith.sample import Region, RegionKind
from lensmith.tokens import ImageGrid, PixelBudget

SIZE = (1024, 672)
BOX_FORMS = [form for form in FORMS if "box" in form.kinds]
share = st.floats(0, 1)
# What a person types: anything without line breaks and tags, which a label may not hold.
labels = st.text(
    st.characters(codec="utf-8", exclude_characters="\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029<[")
).map(str.strip)
sizes = st.tuples(st.integers(8, 5000), st.integers(8, 5000)).filter(lambda s: max(s) <= 200 * min(s))


@st.composite
def boxes(draw: st.DrawFn, least_edge: float = 0.0, least_area: float = 0.0) -> Region:
    width = draw(st.floats(max(least_edge, least_area, 1e-6), 1))
    height = draw(st.floats(min(1.0, max(least_edge, least_area / width, 1e-6)), 1))
    x, y = draw(st.floats(0, 1 - width)), draw(st.floats(0, 1 - height))
    return Region("box", (x, y, min(1.0, x + width), min(1.0, y + height)), draw(labels))


def there_and_back(region: Region, form: CoordinateForm, size: tuple[int, int] = SIZE) -> Region:
    read = parse_regions(write_regions([region], form, size), form, size)
    assert read.unread == ()
    (found,) = read.regions
    return found


@pytest.mark.parametrize("form", BOX_FORMS)
@given(region=boxes())
def test_a_box_survives_its_text_within_the_bound(form: CoordinateForm, region: Region) -> None:
    found = there_and_back(region, form)
    assert (found.kind, found.label, found.image) == ("box", region.label, 0)
    assert region_problems(found, 1) == []
    assert box_iou(found.values, region.values) >= least_iou(region, form, SIZE) - 1e-9


@pytest.mark.parametrize("form", [JSON_THOUSAND, BOX_TOKENS, REF_DET])
@given(region=boxes(least_edge=0.201))
def test_boxes_of_a_fifth_of_both_edges_keep_0_99_at_0_to_1000(form: CoordinateForm, region: Region) -> None:
    assert box_iou(there_and_back(region, form).values, region.values) >= 0.99


@given(boxes(least_area=0.01), sizes, st.sampled_from([28, 32]))
def test_a_box_above_one_percent_keeps_0_99_through_any_resize(
    region: Region, size: tuple[int, int], factor: int
) -> None:
    """Drawn in pixels of one size, kept, and laid over what the processor makes of the image."""
    drawn = [value * size[at % 2] for at, value in enumerate(region.values)]
    stored = to_relative("box", drawn, "pixel", size)
    resized = ImageGrid(factor, 1, PixelBudget(factor**2 * 4, factor**2 * 4096)).resized(*size)
    laid = [value * resized[at % 2] for at, value in enumerate(stored)]
    back = to_relative("box", laid, "pixel", resized)
    assert box_iou(back, region.values) >= 0.99
    # What is written hangs on the place alone, never on the resize.
    written = written_values(Region("box", stored), JSON_THOUSAND, size)
    assert written == written_values(Region("box", stored), JSON_THOUSAND, resized)


@given(boxes(least_edge=0.2), st.tuples(st.integers(1024, 4096), st.integers(1024, 4096)))
def test_pixels_of_a_resized_image_keep_0_99(region: Region, size: tuple[int, int]) -> None:
    assert least_iou(region, JSON_PIXELS, size) >= 0.99
    assert box_iou(there_and_back(region, JSON_PIXELS, size).values, region.values) >= 0.99


def test_no_rounding_keeps_0_99_at_one_percent_and_the_bound_is_reached() -> None:
    """A square of 1 % with edges half-way between numbers: every choice of whole neighbours is below."""
    exact = (100.5, 300.5, 200.5, 400.5)
    choices = itertools.product(*((math.floor(edge), math.ceil(edge)) for edge in exact))
    assert max(box_iou(exact, choice) for choice in choices) < 0.981
    inwards = Region("box", (0.1005001, 0.3005001, 0.2004999, 0.4004999))
    found = there_and_back(inwards, JSON_THOUSAND)
    assert box_iou(found.values, inwards.values) == pytest.approx(least_iou(inwards, JSON_THOUSAND), abs=1e-4)


@given(region=boxes())
def test_nearest_is_the_best_rounding_of_each_edge(region: Region) -> None:
    numbers = written_values(region, JSON_THOUSAND)
    if min(numbers[2] - numbers[0], numbers[3] - numbers[1]) > 1:
        for number, value in zip(numbers, region.values, strict=True):
            assert abs(number - value * 1000) <= 0.5 + 1e-9


@pytest.mark.parametrize("form", [JSON_THOUSAND, JSON_PIXELS, BOX_TOKENS, POINT_TAGS, POINT_LIST])
@given(place=st.tuples(share, share), label=labels)
def test_a_point_survives_its_text(form: CoordinateForm, place: tuple[float, float], label: str) -> None:
    found = there_and_back(Region("point", place, label), form)
    far = form.far(SIZE)
    assert found.kind == "point"
    for at, value in enumerate(found.values):
        assert abs(value - place[at]) * far[at] <= form.step / 2 + 1e-6


@pytest.mark.parametrize("form", [JSON_THOUSAND, BOX_TOKENS])
@given(st.integers(0, 40_000_000), st.integers(1, 9_000_000))
def test_a_span_survives_its_text(form: CoordinateForm, start: int, length: int) -> None:
    region = Region("span", (start / 1000, (start + length) / 1000), "signs")
    found = there_and_back(region, form)
    assert found.label == "signs"
    assert found.values == pytest.approx(region.values, abs=1e-9)


def test_texts_as_the_families_write_them() -> None:
    box = Region("box", (0.012, 0.03, 0.48, 0.512), "stamp")
    point = Region("point", (0.25, 0.755), "a & b")
    span = Region("span", (1.5, 3664.0), "signs")
    assert write_regions([box, point, span], JSON_THOUSAND) == (
        '[{"bbox_2d": [12, 30, 480, 512], "label": "stamp"}, {"point_2d": [250, 755], "label": "a & b"}, '
        '{"start": 1.5, "end": 3664, "label": "signs"}]'
    )
    assert write_regions([box, span], BOX_TOKENS) == (
        "stamp<|begin_of_box|>[12, 30, 480, 512]<|end_of_box|>\n"
        "signs<|begin_of_box|>[0:00:01.5, 1:01:04]<|end_of_box|>"
    )
    assert write_regions([box], REF_DET) == "<|ref|>stamp<|/ref|><|det|>[[12, 30, 480, 511]]<|/det|>"
    assert write_regions([point], POINT_TAGS) == '<point x="25.0" y="75.5" alt="a &amp; b">a &amp; b</point>'
    assert write_regions([point, point], POINT_TAGS) == (
        '<points x1="25.0" y1="75.5" x2="25.0" y2="75.5" alt="a &amp; b">a &amp; b</points>'
    )
    assert (
        write_regions([box], JSON_PIXELS, (1000, 500))
        == '[{"bbox_2d": [12, 15, 480, 256], "label": "stamp"}]'
    )
    assert clock(59.9996) == "0:01:00"


def test_a_box_below_one_step_stays_a_box() -> None:
    assert written_values(Region("box", (0.5, 0.5, 0.5001, 0.5001)), JSON_THOUSAND) == (500, 500, 501, 501)
    assert written_values(Region("box", (0.9999, 0, 1.0, 1)), JSON_THOUSAND) == (999, 0, 1000, 1000)
    assert read_values("box", (999, 0, 1000, 1000), JSON_THOUSAND) == (0.999, 0, 1, 1)


@pytest.mark.parametrize(
    ("form", "text", "boxes_found", "unread"),
    [
        (JSON_THOUSAND, '```json\n[\n\t{"bbox_2d": [1, 2, 30, 40], "label": "x"}\n]\n```', 1, 0),
        (JSON_THOUSAND, 'Here: {"bbox_2d": [1,2,30,40]} and {"bbox_2d":["5", 6.0, 70, 80]}. Done.', 2, 0),
        (JSON_THOUSAND, '{"objects": [{"bbox_2d": [1, 2, 30, 40]}, {"note": "none"}]}', 1, 0),
        (JSON_THOUSAND, '[{"bbox_2d": [1, 2, 30, 40]}, {"bbox_2d": [1, 2,', 1, 1),
        (JSON_THOUSAND, '[{"bbox_2d": [1, 2, 30]}, {"bbox_2d": [30, 2, 1, 40]}]', 0, 2),
        (JSON_THOUSAND, '{"bbox_2d": [1, 2, 3, 1001]}', 0, 1),
        (JSON_THOUSAND, '[{"bbox_2d": [1, 2, NaN, 40]}, {"bbox_2d": [1, 2, 1e999, 4]}]', 0, 2),
        (JSON_THOUSAND, '{"bbox_2d": "all"}', 0, 1),
        (JSON_THOUSAND, '[{"bbox_2d": [true, 2, 3, 4]}, {"bbox_3d": [1, 2, 3, 4, 5, 6, 7, 8, 9]}]', 0, 2),
        (JSON_THOUSAND, "{" * 5000 + '{"bbox_2d": [1, 2, 3, ' + "9" * 400 + "]}", 0, 1),
        (JSON_THOUSAND, "no places {at all}", 0, 0),
        (BOX_TOKENS, "a<|begin_of_box|>[[1, 2, 30, 40], [5,6,70,80]]<|end_of_box|>", 2, 0),
        (BOX_TOKENS, "The cat is at <|begin_of_box|> (1 2 30 40) ", 1, 0),
        (BOX_TOKENS, "cat: [1, 2, 30, 40]\nno place here", 1, 0),
        (BOX_TOKENS, "<|begin_of_box|>Paris<|end_of_box|>", 0, 1),
        (REF_DET, "<|ref|>t<|/ref|><|det|>[[1,2,30,40],[5,6,70,80]]<|/det|> and", 2, 0),
        (REF_DET, "<|ref|>u<|/ref|><|det|>[[1,2]]", 0, 1),
        (POINT_TAGS, "<point alt='a'>a</point>", 0, 1),
    ],
)  # fmt: skip
def test_model_output_is_read_as_far_as_it_goes(
    form: CoordinateForm, text: str, boxes_found: int, unread: int
) -> None:
    read = parse_regions(text, form)
    assert (len(read.regions), len(read.unread)) == (boxes_found, unread), read


@pytest.mark.parametrize("form", FORMS)
@given(text=st.text() | st.text('[]{}()<>|",:x1=0.5box_2d\n '))
def test_no_text_stops_the_reader(form: CoordinateForm, text: str) -> None:
    for region in parse_regions(text, form, SIZE).regions:
        assert region_problems(region, 1) == []


def test_a_3d_box_is_refused_by_name() -> None:
    ((_, why),) = parse_regions('{"bbox_3d": [1, 2, 3, 4, 5, 6, 7, 8, 9]}', JSON_THOUSAND).unread
    assert "3-D" in why


@pytest.mark.parametrize(
    ("region", "form"), [(Region("point", (0, 0)), REF_DET), (Region("box", (0, 0, 1, 1)), POINT_TAGS)]
)
def test_kinds_that_a_family_does_not_write(region: Region, form: CoordinateForm) -> None:
    with pytest.raises(InputError, match=f"writes no {region.kind}"):
        write_regions([region], form)


def test_labels_that_would_break_the_tags_and_pixels_without_size() -> None:
    with pytest.raises(InputError, match="cannot be written"):
        write_regions([Region("box", (0, 0, 1, 1), "a<|end_of_box|>")], BOX_TOKENS)
    with pytest.raises(InputError, match="pixels of the resized image"):
        write_regions([Region("box", (0, 0, 1, 1))], JSON_PIXELS)


@pytest.mark.parametrize(
    ("unit", "values"),
    [
        ("relative", (0.1, 0.2, 0.9, 1.0)),
        ("percent", (10.0, 20.0, 90.0, 100.0)),
        ("thousand", (100, 200, 900, 1000)),
        ("pixel", (64, 96, 576, 480)),
    ],
)
def test_every_unit_comes_to_the_same_place(unit: Unit, values: tuple[float, ...]) -> None:
    assert to_relative("box", values, unit, (640, 480)) == (0.1, 0.2, 0.9, 1.0)
    assert to_relative("span", (1, 2.5), unit, (0, 0)) == (1.0, 2.5)


def test_percent_sums_do_not_leave_the_image_and_pixels_need_a_size() -> None:
    assert to_relative("point", (33.3 + 66.7, 100.0), "percent", (0, 0)) == (1.0, 1.0)
    with pytest.raises(InputError, match="without the size"):
        to_relative("point", (1, 1), "pixel", (0, 0))


@pytest.mark.parametrize(
    ("kind", "values", "image", "word"),
    [
        ("box", (0.1, 0.1, 0.2, 0.2), 0, ""),
        ("point", (0.0, 1.0), 1, ""),
        ("span", (0.0, 9000.0), 0, ""),
        ("box", (0.1, 0.1, 1.01, 0.2), 0, "leaves the image"),
        ("point", (-0.001, 0.5), 0, "leaves the image"),
        ("box", (0.2, 0.1, 0.2, 0.2), 0, "empty or turned over"),
        ("box", (0.1, 0.3, 0.2, 0.2), 0, "empty or turned over"),
        ("box", (0.1, math.nan, 0.2, 0.2), 0, "not finite"),
        ("point", (math.inf, 0.2), 0, "not finite"),
        ("span", (2.0, 2.0), 0, "span runs"),
        ("span", (-1.0, 2.0), 0, "span runs"),
        ("box", (0.1, 0.1, 0.2), 0, "4 numbers, not 3"),
        ("box", (0.1, 0.1, 0.2, 0.2), 2, "the row has 2"),
        ("box", (0.1, 0.1, 0.2, 0.2), -1, "the row has 2"),
    ],
)
def test_what_a_good_region_is(kind: RegionKind, values: tuple[float, ...], image: int, word: str) -> None:
    problems = region_problems(Region(kind, values, "", image), 2)
    assert len(problems) == bool(word)
    assert all(word in each for each in problems)


def test_molmo2_lists_its_points() -> None:
    here, there = Region("point", (0.007, 0.5), "a & b"), Region("point", (1, 0.25), "a & b")
    text = write_regions([here, there], POINT_LIST)
    assert text == '<points coords="1 1 007 500 2 1000 250">a &amp; b</points>'
    assert parse_regions(text, POINT_LIST).regions == (here, there)
    read = parse_regions('Here: <points alt="x" coords="1 1 007 500">dot</points>', POINT_LIST)
    assert [(each.label, each.values) for each in read.regions] == [("dot", (0.007, 0.5))]
    assert parse_regions('<points coords="1 1 007"/>', POINT_LIST).unread
    assert parse_regions('<points coords="1 1 007 1001">dot</points>', POINT_LIST).unread
