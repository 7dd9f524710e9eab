"""The formats by name. A reader, and the libraries it needs, are loaded when it is used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.sources.archived import Archived
from data_prep.sources.detect import detect, is_archive
from data_prep.sources.options import parse_options, suggestion
from data_prep.sources.source import Source
from lensmith.errors import InputError, Problem
from lensmith.section import Section


@dataclass(frozen=True)
class Format:
    """A reader of one module of this package. folder: it reads folders as well."""

    module: str
    reader: str
    folder: bool = False

    def load(self) -> type[Source]:
        """The reader. Raises InputError where a library that it needs is not installed."""
        try:
            found = vars(importlib.import_module(f"data_prep.sources.{self.module}"))
        except ModuleNotFoundError as error:
            problem = Problem(f"{error.name} is not installed", mend="install lensmith[formats]")
            raise InputError("this format needs another library", [problem]) from error
        return found[self.reader]


FORMATS: dict[str, Format] = {
    "lensmith": Format("canonical_jsonl", "CanonicalJsonl"),
    "openai": Format("openai_messages", "OpenAIMessages"),
    "sharegpt": Format("sharegpt", "ShareGPT"),
    "llava": Format("llava", "Llava"),
    "coco": Format("coco", "Coco"),
    "label_studio": Format("label_studio", "LabelStudio"),
    "csv": Format("table", "Table"),
    "excel": Format("table", "Table"),
    "parquet": Format("parquet", "Parquet", folder=True),
    "datasets": Format("parquet", "Parquet", folder=True),
    "webdataset": Format("webdataset", "Webdataset", folder=True),
    "pdf": Format("pdf", "Pdf", folder=True),
    "dicom": Format("dicom", "Dicom", folder=True),
}


def open_source(path: Path, format: str | None, options: Mapping[str, Any]) -> Source:  # noqa: A002
    """The source at `path`, read as `format`, or as what it is found to be where that is None.

    Raises InputError where there is nothing at `path`, its format is not known or not one only, an option
    is wrong, or a library is missing. Rows are not read yet.
    """
    if is_archive(path, format):
        return Archived(path, format, lambda labels, name: _read(labels, name, options))
    if format is not None:
        return _read(path, format, options)
    found = detect(path)
    source = _read(found.path, found.format, options)
    source.why = found.why
    return source


def _read(path: Path, format: str, options: Mapping[str, Any]) -> Source:  # noqa: A002
    if format not in FORMATS:
        problem = Problem("no such format", f"format: {format}", suggestion(format, list(FORMATS)))
        raise InputError(f"{path} cannot be read", [problem])
    if not path.exists():
        raise InputError(f"{path} is not there", [Problem("no such file or folder")])
    chosen = FORMATS[format]
    if path.is_dir() and not chosen.folder:
        problem = Problem("is a folder", str(path), f"format {format} is read from a file: name it")
        raise InputError(f"{path} cannot be read", [problem])
    # Each reader's own signature: (path) or (path, options).
    make: Any = chosen.load()
    kind: type[Section] | None = make.options_kind
    if kind is not None:
        return make(path, parse_options(kind, options, f"{format} ({path.name})"))
    if options:
        problems = [Problem("unknown option", name, "leave it out") for name in options]
        raise InputError(f"format {format} has no options", problems)
    return make(path)
