"""How a family's processor takes a video, as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from lensmith.errors import InputError, Problem


@dataclass(frozen=True)
class VideoForm:
    """What the processor makes of the chat template's place for a video, as text.

    place: what the template writes. token: what stands for a piece of a frame. written: by the class of the
    checkpoint's processor, what the place becomes for each `frames` frames, which are seen as one: {time} is
    their time, {tokens} all their tokens; between: what stands between two of these. time: the middle of
    their times, in seconds to a tenth, or the first one in whole seconds, cut. cut: "area", frames are
    resized under a budget of pixels; "square", each to one size. settings: of the video processor, beside
    those of the checkpoint.
    id: the key of config.json that names the token of a piece in what an engine is asked; "" for that of an
    image's. distinct: vLLM leaves out the time of a frame that has another's. served: most videos that vLLM's
    class takes in one request; None for any number.
    """

    place: str
    token: str
    written: Mapping[str, str]
    time: Literal["middle", "first"]
    frames: int = 2
    between: str = ""
    cut: Literal["area", "square"] = "area"
    settings: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""
    distinct: bool = False
    served: int | None = None

    def fill(self, prompt: str, videos: Sequence[Sequence[float]], processor: str) -> str:
        """The prompt with each video's place as it becomes, but one token for all of a group of frames.

        videos: the times in seconds of each video's frames. processor: its class. Raises InputError where the
        prompt has not as many places as videos, or the class is none of those whose writing is known.
        """
        form = self.written.get(processor)
        if form is None:
            mend = f"take a checkpoint with {' or '.join(sorted(self.written))}, or leave videos out"
            raise InputError(
                "how this checkpoint's processor writes a video's times is not known",
                [Problem(f"is a {processor}", "processor_class", mend)],
            )
        pieces = prompt.split(self.place)
        if len(pieces) - 1 != len(videos):
            raise InputError(
                f"a prompt has {len(pieces) - 1} places for {len(videos)} videos",
                [
                    Problem(
                        f"the chat template does not write {self.place} for each", mend="mend the template"
                    )
                ],
            )
        written = pieces[0]
        for seconds, piece in zip(videos, pieces[1:], strict=True):
            written += self._text(form, seconds) + piece
        return written

    def groups(self, frames: int) -> int:
        """How many groups so many frames make."""
        return -(-frames // self.frames)

    def _text(self, form: str, seconds: Sequence[float]) -> str:
        groups = [seconds[at : at + self.frames] for at in range(0, len(seconds), self.frames)]
        return self.between.join(form.format(time=self._time(each), tokens=self.token) for each in groups)

    def _time(self, group: Sequence[float]) -> str:
        return f"{(group[0] + group[-1]) / 2:.1f}" if self.time == "middle" else f"{int(group[0])}"
