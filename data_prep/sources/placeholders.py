"""`<image>` in a text stands for the next image of the row's list, `<video>` for the next video: LLaVA's and
ShareGPT's way.

The newline that these formats put between a placeholder and the text is theirs, not the text's: one is
taken away behind each placeholder, and one before those that end a text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from data_prep.refusal import Flaw
from data_prep.sources.records import Unusable, schema
from lensmith.sample import Image, Part, Text, Video

PLACEHOLDER = "<image>"
VIDEO = "<video>"


def check_count(
    texts: Iterable[str], paths: Sequence[str], placeholder: str = PLACEHOLDER, kind: str = "image"
) -> None:
    """Raise Unusable where the texts of a row do not hold one placeholder for each of its images."""
    found = sum(text.count(placeholder) for text in texts)
    if found == len(paths):
        return
    what = f"the texts hold {found} {placeholder}, the row names {len(paths)} {kind}s"
    if found < len(paths):
        mend = f"write {placeholder} where each {kind} belongs, or take the surplus {kind}s out"
    else:
        mend = f"name every {kind}, or take the surplus {placeholder} out of the text"
    raise Unusable(Flaw("image_count", what, mend))


def split_text(text: str, images: Iterable[str], videos: Iterable[str] | None = None) -> list[Part]:
    """The parts of a text; each placeholder takes the next of `images`, and of `videos` where there are any:
    else VIDEO is text."""
    taken = iter(images)
    filmed = iter(videos or ())
    places = PLACEHOLDER if videos is None else f"{PLACEHOLDER}|{VIDEO}"
    shown = re.findall(places, text)
    pieces = re.split(places, text)
    pieces[1:] = [piece.removeprefix("\n") for piece in pieces[1:]]
    last = max((at for at, piece in enumerate(pieces) if piece), default=0)
    if last < len(pieces) - 1:
        pieces[last] = pieces[last].removesuffix("\n")
    parts: list[Part] = []
    for at, piece in enumerate(pieces):
        if at:
            parts.append(Image(next(taken)) if shown[at - 1] == PLACEHOLDER else Video(next(filmed)))
        if piece:
            parts.append(Text(piece))
    return parts


def join_parts(parts: Sequence[Image | Text]) -> str:
    """The inverse of `split_text` but for the images' paths; no text may hold a placeholder."""
    trailing = len(parts)
    while trailing and isinstance(parts[trailing - 1], Image):
        trailing -= 1
    written = ""
    for at, part in enumerate(parts):
        if isinstance(part, Text):
            written += part.text
            continue
        before = "\n" if at == trailing and at > 0 else ""
        behind = "\n" if at < len(parts) - 1 else ""
        written += f"{before}{PLACEHOLDER}{behind}"
    return written


def image_list(value: object, name: str) -> list[str]:
    """The paths of a row's images: a list, or one path alone; None is none.

    Raises Unusable for anything else.
    """
    if value is None:
        return []
    paths = [value] if isinstance(value, str) else value
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise Unusable(schema(f"{name} is not a list of paths", f'write "{name}": ["images/a.png"]'))
    return paths
