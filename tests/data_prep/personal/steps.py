"""A plain backtracking matcher that counts what it tries: the work of a pattern without a clock."""

from __future__ import annotations

import re
import re._constants as sre
import re._parser as sre_parser
import sys
from collections.abc import Callable
from typing import Any

Then = Callable[[int], bool]
_CLASSES: dict[Any, Callable[[str], bool]] = {
    sre.CATEGORY_DIGIT: str.isdigit,
    sre.CATEGORY_NOT_DIGIT: lambda char: not char.isdigit(),
    sre.CATEGORY_SPACE: str.isspace,
    sre.CATEGORY_NOT_SPACE: lambda char: not char.isspace(),
    sre.CATEGORY_WORD: lambda char: char.isalnum() or char == "_",
    sre.CATEGORY_NOT_WORD: lambda char: not (char.isalnum() or char == "_"),
}
_SINGLE = (sre.LITERAL, sre.NOT_LITERAL, sre.IN, sre.ANY)
# Deep enough for the longest match; no frame of it is the interpreter's own.
_DEPTH = 50_000


class Steps:
    """Matches `pattern` in `text` at one place after the other; `taken` counts the nodes tried."""

    def __init__(self, text: str, pattern: re.Pattern[str]) -> None:
        self._text = text
        self._folds = bool(pattern.flags & re.IGNORECASE)
        self._tree = list(sre_parser.parse(pattern.pattern, pattern.flags))
        self._groups: dict[int, tuple[int, int]] = {}
        self.taken = 0

    def matches(self, start: int) -> bool:
        """Whether there is a match at `start`; counts from 0."""
        self.taken = 0
        self._groups = {}
        before = sys.getrecursionlimit()
        sys.setrecursionlimit(_DEPTH)
        try:
            return self._match(self._tree, 0, start, lambda at: True)
        finally:
            sys.setrecursionlimit(before)

    def _match(self, nodes: list[Any], index: int, at: int, then: Then) -> bool:
        if index == len(nodes):
            return then(at)
        self.taken += 1
        kind, value = nodes[index]

        def rest(place: int) -> bool:
            return self._match(nodes, index + 1, place, then)

        if kind in _SINGLE:
            return self._is(kind, value, at) and rest(at + 1)
        if kind is sre.BRANCH:
            return any(self._match(list(each), 0, at, rest) for each in value[1])
        if kind is sre.SUBPATTERN:
            return self._group(value, at, rest)
        if kind in (sre.MAX_REPEAT, sre.POSSESSIVE_REPEAT):
            return self._repeat(kind is sre.POSSESSIVE_REPEAT, value, at, rest)
        if kind in (sre.ASSERT, sre.ASSERT_NOT):
            return self._looks(value, at) == (kind is sre.ASSERT) and rest(at)
        if kind is sre.GROUPREF:
            start, end = self._groups[value]
            return self._text.startswith(self._text[start:end], at) and rest(at + end - start)
        if kind is sre.AT and value is sre.AT_BOUNDARY:
            return self._is_word(at - 1) != self._is_word(at) and rest(at)
        # A pattern with a node that is not counted here must not pass for a cheap one.
        raise ValueError(f"the matcher does not know {kind}: teach it, a pattern has it now")

    def _group(self, value: Any, at: int, rest: Then) -> bool:
        number, _, _, nodes = value

        def closed(place: int) -> bool:
            if number is not None:
                self._groups[number] = at, place
            return rest(place)

        return self._match(list(nodes), 0, at, closed)

    def _repeat(self, possessive: bool, value: Any, at: int, rest: Then) -> bool:
        least, most, parsed = value
        nodes = list(parsed)
        if len(nodes) == 1 and nodes[0][0] in _SINGLE:
            count = 0
            while count < most and self._is(*nodes[0], at + count):
                self.taken += 1
                count += 1
            shortest = count if possessive else least
            return any(rest(at + length) for length in range(count, shortest - 1, -1) if length >= least)
        if possessive:
            count = 0
            while count < most and (end := self._once(nodes, at)) > at:
                at, count = end, count + 1
            return count >= least and rest(at)
        return self._again(nodes, least, most, 0, at, rest)

    def _again(self, nodes: list[Any], least: int, most: int, count: int, at: int, rest: Then) -> bool:
        def further(place: int) -> bool:
            return place > at and self._again(nodes, least, most, count + 1, place, rest)

        return (count < most and self._match(nodes, 0, at, further)) or (count >= least and rest(at))

    def _once(self, nodes: list[Any], at: int) -> int:
        ends = [at]

        def ended(place: int) -> bool:
            ends.append(place)
            return True

        self._match(nodes, 0, at, ended)
        return ends[-1]

    def _looks(self, value: Any, at: int) -> bool:
        direction, nodes = value
        start = at if direction > 0 else at - nodes.getwidth()[0]
        return start >= 0 and self._match(list(nodes), 0, start, lambda place: True)

    def _is(self, kind: Any, value: Any, at: int) -> bool:
        if at >= len(self._text):
            return False
        char = self._text[at]
        cases = {char, char.lower(), char.upper()} if self._folds else {char}
        if kind is sre.ANY:
            return char != "\n"
        if kind is sre.LITERAL:
            return any(ord(each) == value for each in cases)
        if kind is sre.NOT_LITERAL:
            return all(ord(each) != value for each in cases)
        negated = value[0][0] is sre.NEGATE
        items = value[1:] if negated else value
        return any(_holds(items, each) for each in cases if len(each) == 1) != negated

    def _is_word(self, at: int) -> bool:
        return 0 <= at < len(self._text) and _CLASSES[sre.CATEGORY_WORD](self._text[at])


def _holds(items: Any, char: str) -> bool:
    for kind, value in items:
        if kind is sre.LITERAL and ord(char) == value:
            return True
        if kind is sre.RANGE and value[0] <= ord(char) <= value[1]:
            return True
        if kind is sre.CATEGORY and _CLASSES[value](char):
            return True
    return False
