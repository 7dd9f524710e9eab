"""DICOM files with a table of labels, for which only the picture is taken.

    file,finding
    study1/IM0001,pleural effusion

No tag of a file reaches a row, an error's text or a file's name. File names themselves often are patients'
names or numbers, so a row calls its image by a digest of its path in the folder ("4f1c...#frame=1"); the
table of labels leads back to the file. What the table says is taken as it is: name patients by pseudonyms.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from data_prep.decoding.work import Drawing
from data_prep.pictures import locate
from data_prep.refusal import Flaw
from data_prep.sources.columns import sample_of
from data_prep.sources.dicom_picture import DicomPicture
from data_prep.sources.rendered import DocumentOptions, DrawnSource, read_number, split_number
from data_prep.sources.sheet import Record
from data_prep.sources.source import Found
from lensmith.images import BadImage, ImageLimits, encode_png
from lensmith.sample import Image

DRAW = "data_prep.sources.dicom:draw_frame"


class DicomOptions(DocumentOptions):
    """How a folder of DICOM files is read."""

    frame: str = Field(
        default="", description="column with the frame, from 1; several are refused where empty"
    )
    window: Literal["file", "range"] = Field(
        default="file",
        description="grey levels by the file's first window, or from darkest to brightest pixel",
    )
    center: float | None = Field(default=None, description="centre of one window for all, after rescaling")
    width: float | None = Field(default=None, gt=0, description="its width")
    burned_in: Literal["refuse", "keep"] = Field(
        default="refuse", description="files that say text about the patient is in the picture itself"
    )

    @model_validator(mode="after")
    def _whole_window(self) -> DicomOptions:
        if (self.center is None) != (self.width is None):
            raise ValueError("one window for all has both a center and a width")
        return self


class Dicom(DrawnSource):
    """Frames of DICOM files, each labelled by a row of the table."""

    format = "dicom"
    options_kind = DicomOptions

    def __init__(self, path: Path, options: DicomOptions) -> None:
        self.options = options
        super().__init__(path, options, ("frame", options.frame))

    @cached_property
    def _files(self) -> dict[str, str]:
        """The path in the folder behind each digest."""
        records = (record.cells for record in self.sheet.records())
        files = (self.file_of(cells) for cells in records if cells is not None)
        return {alias(file): file for file in files}

    def labelled(self, record: Record, cells: dict[str, Any], file: str) -> Found:
        # Frame 0 is "the only one": a file with several is refused when it is opened.
        frame = read_number(cells[self.options.frame]) if self.options.frame else 0
        if frame is None:
            flaw = Flaw("schema", "the frame is no number", "write 1 for the first frame")
            return Found(record.place, "", None, (flaw,))
        name = alias(file)
        path = f"{name}#frame={frame}" if frame else name
        images = [Image(path)] if file else []
        return sample_of(self.options, cells, record.place, images, (path, name) if file else ("", ""))

    def facts(self) -> dict[str, Any]:
        window = [self.options.window, self.options.center, self.options.width]
        return {**super().facts(), "window": window}

    def drawing(self, path: str) -> Drawing | Flaw:
        name, frame = split_number(path, "frame") or (path, 0)
        file = self._files.get(name)
        if file is None:
            return Flaw("image_missing", "the table of labels names no such file", "prepare the data again")
        target = locate(self.root, file)
        if isinstance(target, Flaw):
            mend = "give it relative to the folder, inside of it, with / between names"
            return Flaw(target.code, "the file's path in the table of labels leaves the folder", mend)
        settings = self.options.model_dump(include={"window", "center", "width", "burned_in"})
        return Drawing(DRAW, target, frame, settings)


def alias(file: str) -> str:
    """What a row calls a file: 32 hex digits of a SHA-256 of its path in the folder."""
    return hashlib.sha256(f"lensmith dicom {file}".encode("utf-8", "surrogatepass")).hexdigest()[:32]


def draw_frame(asked: Drawing, limits: ImageLimits) -> bytes:
    """The frame that `Dicom.picture` asks for, as PNG of 8 bits a channel.

    Raises OSError where the file cannot be read, and BadImage, whose words hold nothing of its tags but
    transfer syntax and size, where it is no DICOM image, is compressed in a way that cannot be read, has
    burned-in text, several frames of which none is named, or not that frame.
    """
    picture = DicomPicture(asked.read())
    if picture.burned_in and asked.settings["burned_in"] == "refuse":
        raise BadImage("the file says that text about the patient is burned into the picture")
    if picture.frames > 1 and not asked.number:
        raise BadImage(f"the file has {picture.frames} frames: name one in a column of the labels (frame)")
    center, width = asked.settings["center"], asked.settings["width"]
    window = asked.settings["window"] if center is None else (center, width)
    return encode_png(picture.frame(max(1, asked.number), limits, window))
