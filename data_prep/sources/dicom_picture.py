"""The pixels of a DICOM file as people see them: rescaled, windowed, white where it shall be white."""

from __future__ import annotations

import io
import warnings
from typing import Any, Literal

import numpy
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi
from pydicom.pixels.utils import pixel_array

from lensmith.images import BadImage, ImageLimits

Floats = NDArray[numpy.float64]
# The file's own window, the whole range of its pixels, or (centre, width).
Window = Literal["file", "range"] | tuple[float, float]
_PALETTE = "PALETTE COLOR"
_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


class DicomPicture:
    """A DICOM file, opened. Raises BadImage where it is none or holds no pixels.

    pydicom's own words hold what stands in tags (patients' names): no error here repeats them, or keeps
    them as its cause.
    """

    def __init__(self, data: bytes) -> None:
        self._data = _quietly(lambda: pydicom.dcmread(io.BytesIO(data)), "is no DICOM file, or a broken one")
        if "PixelData" not in self._data:
            raise BadImage("the DICOM file holds no picture")
        self._syntax = self._data.file_meta.get("TransferSyntaxUID")
        if self._syntax is None:
            raise BadImage("the DICOM file does not say how its pixels are stored (transfer syntax)")
        self.frames = max(1, self._number("NumberOfFrames", 1))

    @property
    def burned_in(self) -> bool:
        """Whether the file says that its picture shows text about the patient, or a face."""
        tags = ("BurnedInAnnotation", "RecognizableVisualFeatures")
        return any(str(self._data.get(tag, "")).strip().upper() == "YES" for tag in tags)

    def _number(self, tag: str, default: int) -> int:
        return _quietly(lambda: int(self._data.get(tag) or default), f"its {tag} is no number")

    def frame(self, number: int, limits: ImageLimits, window: Window) -> Image.Image:
        """Frame `number`, from 1, in RGB. Raises BadImage."""
        if number > self.frames:
            raise BadImage(f"the file has {self.frames} frames, frame {number} is asked for")
        width, height = self._number("Columns", 0), self._number("Rows", 0)
        if width * height > limits.max_pixels:
            raise BadImage(f"{width} x {height} pixels, {limits.max_pixels:,} in all are allowed")
        if min(width, height) < limits.min_edge:
            raise BadImage(f"{width} x {height} pixels: an edge of at least {limits.min_edge} is needed")
        self._check_syntax()
        colours = str(self._data.get("PhotometricInterpretation", ""))
        if colours not in (*_GREY, *_COLOUR, _PALETTE):
            raise BadImage("its colours are neither grey, RGB, YBR nor a palette")
        pixels = _quietly(lambda: pixel_array(self._data, index=number - 1), "its pixels cannot be decoded")
        if colours in _GREY:
            grey = self._grey(pixels, window)
            return Image.fromarray(255 - grey if colours == "MONOCHROME1" else grey).convert("RGB")
        if colours == _PALETTE:
            pixels = _quietly(lambda: apply_color_lut(pixels, self._data), "its palette is broken")
        return Image.fromarray(_eight_bits(pixels), "RGB")

    def _check_syntax(self) -> None:
        # The names are the standard's (PS3.6, table A-1); a private one is told by its number.
        name = self._syntax.name if self._syntax.is_valid else "something unknown"
        try:
            ready = get_decoder(self._syntax).is_available
        except NotImplementedError:
            # How pydicom says that it knows no decoder of this name, a private one's say.
            ready = False
        if not ready:
            raise BadImage(f"its pixels are compressed as {name}, which cannot be read: save it uncompressed")

    def _grey(self, pixels: NDArray[Any], window: Window) -> NDArray[numpy.uint8]:
        words = "its grey levels (rescale, window or table) cannot be applied"
        values: Floats = _quietly(lambda: apply_modality_lut(pixels, self._data), words).astype(numpy.float64)
        if isinstance(window, tuple):
            return windowed(values, *window, "LINEAR")
        if window == "file" and self._data.get("VOILUTSequence"):
            # The table holds the grey levels themselves, in the bits that its descriptor states.
            bits = _quietly(lambda: int(self._data.VOILUTSequence[0].LUTDescriptor[2]), words)
            looked_up = _quietly(lambda: apply_voi(values.astype(numpy.int64), self._data), words)
            return _scaled(looked_up.astype(numpy.float64), 0.0, float(2**bits - 1))
        stated = _quietly(self._stated_window, words) if window == "file" else None
        if stated is not None:
            return windowed(values, *stated)
        return _scaled(values, float(values.min()), float(values.max()))

    def _stated_window(self) -> tuple[float, float, str] | None:
        centers, widths = self._data.get("WindowCenter"), self._data.get("WindowWidth")
        if centers is None or widths is None:
            return None
        center, width = (float(numpy.atleast_1d(values)[0]) for values in (centers, widths))
        return center, width, str(self._data.get("VOILUTFunction") or "LINEAR").strip().upper()


def windowed(values: Floats, center: float, width: float, function: str) -> NDArray[numpy.uint8]:
    """Values through a window to 0..255, as DICOM defines it (PS3.3, C.11.2.1.2 and C.11.2.1.3).

    Raises BadImage for a window of no width, or another function than LINEAR, LINEAR_EXACT and SIGMOID.
    """
    if not numpy.isfinite((center, width)).all() or width <= 0 or (function == "LINEAR" and width < 1):
        raise BadImage("its window has no width")
    match function:
        case "LINEAR":
            # A width of 1 is a threshold: any small slope gives the standard's two branches.
            return _scaled(values, center - 0.5 - (width - 1) / 2, center - 0.5 + max(width - 1, 1e-9) / 2)
        case "LINEAR_EXACT":
            return _scaled(values, center - width / 2, center + width / 2)
        case "SIGMOID":
            power = numpy.clip(-4 * (values - center) / width, -700, 700)
            return _scaled(1 / (1 + numpy.exp(power)), 0.0, 1.0)
        case _:
            raise BadImage("its window is neither LINEAR, LINEAR_EXACT nor SIGMOID")


def _scaled(values: Floats, darkest: float, brightest: float) -> NDArray[numpy.uint8]:
    if brightest <= darkest:
        return numpy.zeros(values.shape, numpy.uint8)
    share = numpy.clip((values - darkest) / (brightest - darkest), 0.0, 1.0)
    return numpy.rint(share * 255).astype(numpy.uint8)


def _eight_bits(pixels: NDArray[Any]) -> NDArray[numpy.uint8]:
    if pixels.dtype == numpy.uint8:
        return pixels
    return _scaled(pixels.astype(numpy.float64), 0.0, float(numpy.iinfo(pixels.dtype).max))


def _quietly(action: Any, words: str) -> Any:
    """What `action` gives; BadImage with `words` instead of whatever it raises, which may name a patient."""
    failed = False
    result = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            result = action()
        except MemoryError:
            raise
        except Exception:
            failed = True
    if failed:
        # Raised outside of the handler: the cause, which a traceback would print, holds tags.
        raise BadImage(words)
    return result
