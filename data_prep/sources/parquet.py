"""Parquet files, and datasets saved with `datasets.save_to_disk`: read with pyarrow alone.

An image column holds what `datasets` calls an Image (bytes and path), a list of these, plain bytes, or a
path in the folder. Images that lie in the file are named by their place:
"train.parquet#row=17&column=image&item=0", rows from 0.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow
from pydantic import Field

from data_prep.pictures import locate
from data_prep.refusal import Flaw, quoted
from data_prep.sources.arrow_file import ArrowFile, ArrowStream, Batch, ParquetFile
from data_prep.sources.chat import conversation
from data_prep.sources.columns import ColumnOptions, check_columns, identity, kept, sample_of
from data_prep.sources.folder import file_stamp, files_facts
from data_prep.sources.options import Names, suggestion
from data_prep.sources.source import Found, Source
from lensmith.errors import InputError, Problem
from lensmith.sample import Image, Sample
from lensmith.strict_json import parse_strict_json

_MEMBER = re.compile(r"(?P<file>.+)#row=(?P<row>\d{1,12})&column=(?P<column>.+)&item=(?P<item>\d{1,6})", re.S)


class ParquetOptions(ColumnOptions):
    """How Parquet files or a saved dataset are read."""

    image: Names = Field(description="columns with the row's images, in the order they are shown")
    messages: str = Field(
        default="", description="column with the conversation in chat form, in place of prompt and answer"
    )
    split: str = Field(default="", description="which split of a saved dataset of several")
    image_root: str = Field(
        default="", description="folder of images that are given as paths, relative to the file"
    )

    def check_one_way(self) -> None:
        if not self.messages:
            super().check_one_way()
        elif self.answer or self.answer_fields or self.prompt or self.prompt_column or self.system:
            raise ValueError("messages holds the whole conversation: leave out prompt, system and answer")


class Parquet(Source):
    """A Parquet file, a folder of them, or a saved dataset."""

    options_kind = ParquetOptions

    def __init__(self, path: Path, options: ParquetOptions) -> None:
        self.folder = path if path.is_dir() else path.parent
        self.root = (self.folder / options.image_root).resolve()
        self.format = "parquet"
        self.path = path
        self.options = options
        self.name = path.name
        if path.is_dir() and ((path / "state.json").is_file() or (path / "dataset_dict.json").is_file()):
            self.format = "datasets"

    @cached_property
    def files(self) -> dict[str, ArrowFile]:
        """The opened files by their path in the folder, in order.

        Raises InputError where there is none, one cannot be read, or one lacks a column that is named.
        """
        if self.format == "datasets":
            found: dict[str, ArrowFile] = {
                path.relative_to(self.path).as_posix(): ArrowStream(path) for path in self._saved_files()
            }
        else:
            paths = sorted(self.path.rglob("*.parquet")) if self.path.is_dir() else [self.path]
            found = {path.relative_to(self.folder).as_posix(): ParquetFile(path) for path in paths}
        if not found:
            raise InputError(f"{self.path} holds no Parquet file", [Problem("nothing ends in .parquet")])
        named = [*self.options.named(), ("messages", self.options.messages)]
        named += [("image", name) for name in self.options.image]
        for name, file in found.items():
            check_columns(name, named, file.schema.names)
        return found

    def _saved_files(self) -> list[Path]:
        folder = self.path
        if (folder / "dataset_dict.json").is_file():
            splits = _read_json(folder / "dataset_dict.json").get("splits", [])
            if self.options.split not in splits:
                problem = Problem("names no split", "option split", suggestion(self.options.split, splits))
                raise InputError(f"{folder} holds several splits", [problem])
            folder = folder / self.options.split
        state = _read_json(folder / "state.json")
        if state.get("_indices_data_files"):
            problem = Problem("its rows are chosen by another file", mend="save it again: flatten_indices()")
            raise InputError(f"{folder} cannot be read", [problem])
        names = [str(each["filename"]) for each in state.get("_data_files", [])]
        if any(Path(name).name != name for name in names):
            raise InputError(f"{folder} cannot be read", [Problem("names files outside of it", "state.json")])
        return [folder / name for name in names]

    def facts(self) -> dict[str, Any]:
        return files_facts({name: file.path for name, file in self.files.items()})

    def rows(self) -> Iterator[Found]:
        named = [*self.options.named(), ("messages", self.options.messages)]
        wanted = [name for _, name in named if name] + list(self.options.image)
        columns = list(Counter(wanted))
        for name, file in self.files.items():
            for batch in file.batches(columns):
                yield from self._found(name, batch)

    def _found(self, name: str, batch: Batch) -> Iterator[Found]:
        if batch.table is None:
            place = f"{name} rows {batch.first + 1} to {batch.first + batch.rows}"
            flaw = Flaw("schema", "this part of the file is damaged", "copy or export it again")
            yield Found(place, "", None, (flaw,))
            return
        for offset in range(batch.rows):
            row = batch.first + offset
            place = f"{name} row {row + 1}"
            images = [
                image
                for column in self.options.image
                for image in _images(batch.table.column(column)[offset], f"{name}#row={row}&column={column}")
            ]
            record = {
                column: batch.table.column(column)[offset].as_py()
                for column in batch.table.schema.names
                if column not in self.options.image
            }
            names = (f"{name}#row={row}", f"{name}#row={row}")
            if self.options.messages:
                yield self._chat(record, place, images, names)
            else:
                yield sample_of(self.options, record, place, images, names)

    def _chat(self, record: dict[str, Any], place: str, images: list[Image], names: tuple[str, str]) -> Found:
        options = self.options
        flaws: list[Flaw] = []
        row, group = identity(options, record, names, flaws)
        value = record[options.messages]
        if isinstance(value, str):
            try:
                value = parse_strict_json(value)
            except ValueError as error:
                what = f"column {quoted(options.messages)}: {error}"
                return Found(place, row, None, (*flaws, Flaw("not_json", what, "export the row again")))
        messages = conversation(value, images)
        if isinstance(messages, list):
            flaws += messages
        if flaws or isinstance(messages, list):
            return Found(place, row if row.isprintable() else "", None, tuple(flaws))
        meta, origin = kept(options, record)
        return Found(place, row, Sample(row, group, messages, meta, (), origin))

    def picture(self, path: str) -> Path | bytes | Flaw:
        member = _MEMBER.fullmatch(path)
        if member is None:
            return locate(self.root, path)
        file = self.files.get(member["file"])
        if file is None or member["column"] not in self.options.image:
            return Flaw("image_path", f"{quoted(path)} names nothing here", "prepare the data again")
        value = file.cell(int(member["row"]), member["column"])
        items = value if isinstance(value, list) else [value]
        item = int(member["item"])
        content = items[item] if item < len(items) else None
        data = content.get("bytes") if isinstance(content, dict) else content
        if not isinstance(data, bytes):
            return Flaw("image_missing", f"there is no image at {quoted(path)}", "export the row again")
        return data

    def picture_stamp(self, path: str) -> list[Any]:
        return [] if _MEMBER.fullmatch(path) else file_stamp(locate(self.root, path))


def _images(cell: pyarrow.Scalar, place: str) -> list[Image]:
    """The images that a cell holds; their bytes are not copied."""
    if not cell.is_valid:
        return []
    kind = cell.type
    if pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind):
        items = [(index, item) for index, item in enumerate(cell.values) if item.is_valid]
    else:
        items = [(0, cell)]
    found: list[Image] = []
    for index, item in items:
        if pyarrow.types.is_struct(item.type):
            fields = {field.name for field in item.type}
            inside = "bytes" in fields and item["bytes"].is_valid
            path = item["path"].as_py() if "path" in fields else None
        elif pyarrow.types.is_string(item.type) or pyarrow.types.is_large_string(item.type):
            inside, path = False, item.as_py()
        else:
            inside, path = True, None
        if inside:
            found.append(Image(f"{place}&item={index}"))
        elif isinstance(path, str) and path:
            found.append(Image(path))
    return found


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = parse_strict_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read", [Problem(str(error), mend="save it again")]) from error
    if not isinstance(content, dict):
        raise InputError(f"{path} cannot be read", [Problem("is not a JSON object", mend="save it again")])
    return content
