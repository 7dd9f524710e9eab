"""A load test as a page: one chart of throughput, one of waiting, and every figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lensmith.page import render
from lensmith.report import PAGE_FILE
from lensmith.units import GIB
from serving.loadtest.result import Level, Load, LoadTest, Side, Spread

TEMPLATES = Path(__file__).parent / "templates"
# A chart's size, in units of its own, and the room beside its field: left, right, above, below.
_WIDTH, _HEIGHT = 330, 180
_LEFT, _RIGHT, _ABOVE, _BELOW = 44, 6, 10, 26
_STEPS = 4


@dataclass(frozen=True)
class Dot:
    """A level of a line: its place and what it stands for."""

    x: float
    y: float
    told: str


@dataclass(frozen=True)
class Line:
    """One side's values over the loads. side: 0 or 1; dashed: the second of its values."""

    name: str
    side: int
    dashed: bool
    dots: list[Dot]

    @property
    def points(self) -> str:
        """The dots' places, as SVG takes them."""
        return " ".join(f"{dot.x},{dot.y}" for dot in self.dots)


@dataclass(frozen=True)
class Chart:
    """Lines over loads that stand evenly apart. marks: heights and words of the scale; loads: places and
    words below it."""

    title: str
    unit: str
    lines: list[Line]
    marks: list[tuple[float, str]]
    loads: list[tuple[float, str]]
    left: int = _LEFT
    right: int = _WIDTH - _RIGHT
    bottom: int = _HEIGHT - _BELOW
    width: int = _WIDTH
    height: int = _HEIGHT


Value = Callable[[Level], float | None]


def write_page(folder: Path, result: LoadTest) -> None:
    """Write page.html into the draft `folder`."""
    sides = [result.side, *([result.against] if result.against else [])]
    levels = [level for side in sides for level in side.levels]
    facts = {
        "result": result,
        "sides": sides,
        "names": _names(sides),
        # The first figures of a page with two sides are the release's own.
        "whose": f"{_names(sides)[0]}: " if result.against else "",
        "requests": sum(each.requests for each in levels),
        "failures": sum(each.failures for each in levels),
        "by": "requests a second" if sides[0].levels[0].load.rate else "requests in flight",
        "charts": [
            _chart("Throughput", "tokens/s", sides, {"": lambda each: each.output_tokens_per_s}),
            _chart(
                "Time to the first token",
                "ms",
                sides,
                {
                    "half within": _within("first_token_ms", "p50"),
                    "95% within": _within("first_token_ms", "p95"),
                },
            ),
            _chart(
                "Time between tokens",
                "ms",
                sides,
                {
                    "half within": _within("between_tokens_ms", "p50"),
                    "95% within": _within("between_tokens_ms", "p95"),
                },
            ),
        ],
        "best": max(sides[0].levels, key=lambda each: each.output_tokens_per_s),
        "ratio": ratio(result),
        "short": _short,
        "spread": _spread,
        "memory": f"{result.machine.memory / GIB:.0f} GiB",
    }
    (folder / PAGE_FILE).write_text(render(TEMPLATES, "page.html.j2", facts), encoding="utf-8")


def ratio(result: LoadTest) -> list[tuple[Load, float]]:
    """At each load that both sides were measured at, the release's throughput over the other's."""
    if result.against is None:
        return []
    other = {each.load: each.output_tokens_per_s for each in result.against.levels}
    return [
        (each.load, round(each.output_tokens_per_s / other[each.load], 2))
        for each in result.side.levels
        if other.get(each.load)
    ]


def _names(sides: Sequence[Side]) -> list[str]:
    modes = [{"merged": "merged", "adapter": "adapter"}[each.mode] for each in sides]
    if len(set(modes)) == len(modes):
        return modes
    return [f"{mode} {each.release[:12]}" for mode, each in zip(modes, sides, strict=True)]


def _within(times: str, percentile: str) -> Value:
    def value(each: Level) -> float | None:
        spread: Spread | None = getattr(each, times)
        return None if spread is None else getattr(spread, percentile)

    return value


def _chart(title: str, unit: str, sides: Sequence[Side], values: dict[str, Value]) -> Chart:
    loads = list(dict.fromkeys(level.load for side in sides for level in side.levels))
    apart = (_WIDTH - _LEFT - _RIGHT) / max(len(loads), 1)
    place = {load: round(_LEFT + apart * (at + 0.5), 1) for at, load in enumerate(loads)}
    drawn = [
        (at, name, dashed, [(each.load, found) for each in side.levels if (found := value(each)) is not None])
        for at, side in enumerate(sides)
        for dashed, (name, value) in enumerate(values.items())
    ]
    top = _round_up(max((found for *_, points in drawn for _, found in points), default=1.0))

    def height(value: float) -> float:
        return round(_HEIGHT - _BELOW - value / top * (_HEIGHT - _ABOVE - _BELOW), 1)

    names = _names(sides)
    lines = [
        Line(
            f"{names[at]}{', ' if name else ''}{name}" if len(sides) > 1 or name else "",
            at,
            bool(dashed),
            [Dot(place[load], height(found), f"{load}: {_short(found)} {unit}") for load, found in points],
        )
        for at, name, dashed, points in drawn
    ]
    marks = [(height(top * step / _STEPS), _short(top * step / _STEPS)) for step in range(_STEPS + 1)]
    told = [(place[load], f"{load.concurrency or load.rate:g}") for load in loads]
    return Chart(title, unit, lines, marks, told)


def _round_up(value: float) -> float:
    """The next of 1, 2, 4, 5, 8 times a power of ten: what a scale of four steps ends with."""
    power = 1.0
    while power * 10 <= value:
        power *= 10
    while power > value > 0:
        power /= 10
    return next((power * times for times in (1, 2, 4, 5, 8, 10) if power * times >= value), value)


def _short(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _spread(spread: Spread | None) -> str:
    if spread is None:
        return "\N{EN DASH}"
    return " / ".join(_short(each) for each in (spread.p50, spread.p95, spread.p99))
