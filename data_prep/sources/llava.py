"""LLaVA's instruction data: a JSON list (or one row a line).

    [{"id": "form-1", "image": "images/form-1.png",
      "conversations": [{"from": "human", "value": "<image>\\nRead the form."},
                        {"from": "gpt", "value": "{\\"amount\\": \\"12.50\\"}"}]}]

`image` is a path or a list of paths, or left out where the row shows none; so is `video`, with `<video>` in
the text. `from` is human, gpt or system.
Plain values of other fields are kept in meta, nested ones are left behind.
"""

from __future__ import annotations

from collections.abc import Iterator

from data_prep.sources.json_lines import Record
from data_prep.sources.records import ChatSource, build_sample, object_of
from data_prep.sources.sharegpt import build_messages, images_of, read_turns, videos_of
from lensmith.sample import Role, Sample

ROLES: dict[str, Role] = {"human": "user", "gpt": "assistant", "system": "system"}
_KNOWN = frozenset({"conversations", "image", "images", "video", "videos"})


class Llava(ChatSource):
    """A file of LLaVA rows; images lie in its folder."""

    format = "llava"

    def samples(self, record: Record) -> Iterator[Sample]:
        row = object_of(record.value)
        turns = list(read_turns(row.get("conversations"), "conversations", "from", "value", ROLES))
        messages = build_messages(turns, images_of(row), videos_of(row))
        yield build_sample(row, self.options, messages, _KNOWN)
