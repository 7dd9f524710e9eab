"""Personal data in one text: where it stands, and the text without it. JSON stays JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from data_prep.personal.context import BEFORE
from data_prep.personal.detector import Detector
from data_prep.personal.finder import Finder

# Strings and numbers of a JSON text (RFC 8259), and the colon that makes a string a key.
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"(\s*:)?|-?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?')


@dataclass(frozen=True)
class Found:
    """One stretch of personal data: what found it, and its text (never to be shown whole)."""

    detector: Detector
    text: str

    def masked(self) -> str:
        """The first two characters and the length: enough to find it in the row, too little to use it."""
        return f"{self.text[:2]}... ({len(self.text)} characters)"


class Redactor:
    """Finds personal data and, of the kinds that `replaces` says yes to, puts placeholders in its place."""

    def __init__(self, finder: Finder, replaces: Callable[[Detector], bool]) -> None:
        self._finder = finder
        self._replaces = replaces
        self._detectors = {each.name: each for each in finder.detectors}

    def redact(self, text: str) -> tuple[str, list[Found]]:
        """The text with placeholders, and all that was found, replaced or not.

        In a JSON text strings are searched as they read once unescaped, a number that is replaced becomes a
        string, and keys that would become equal are numbered, so that the result is JSON again.
        """
        # Nothing that could be personal and nothing escaped: the common case.
        if "\\" not in text and not self._finder.may_hold(text):
            return text, []
        if _is_json(text):
            return self._json(text)
        return self._plain(text, "")

    def _plain(self, text: str, before: str) -> tuple[str, list[Found]]:
        spans = self._finder.find(text, before)
        found = [Found(self._detectors[span.kind], text[span.start : span.end]) for span in spans]
        for span in reversed(spans):
            detector = self._detectors[span.kind]
            if self._replaces(detector):
                text = text[: span.start] + detector.placeholder + text[span.end :]
        return text, found

    def _json(self, text: str) -> tuple[str, list[Found]]:
        pieces: list[str] = []
        found: list[Found] = []
        keys: dict[str, int] = {}
        done = 0
        for token in _TOKEN.finditer(text):
            start, end = token.start(), token.end()
            before = text[max(0, start - BEFORE) : start]
            raw = token.group()
            colon = token.group(1) or ""
            raw = raw[: len(raw) - len(colon)]
            value = json.loads(raw) if raw.startswith('"') else raw
            redacted, here = self._plain(value, before)
            found += here
            if redacted == value:
                continue
            if colon:
                keys[redacted] = keys.get(redacted, 0) + 1
                redacted += f" {keys[redacted]}" if keys[redacted] > 1 else ""
            pieces += [text[done:start], json.dumps(redacted, ensure_ascii=raw.isascii()), colon]
            done = end
        return "".join([*pieces, text[done:]]), found


def _is_json(text: str) -> bool:
    if not text.lstrip().startswith(("{", "[")):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
