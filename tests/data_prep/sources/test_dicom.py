"""DICOM files: the picture as people see it, and nothing of the patient."""

from __future__ import annotations

import io
import traceback
from pathlib import Path
from typing import Any

import numpy
import PIL.Image
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless, generate_uid

from data_prep.decoding.verdict import Ending, flaw_for
from data_prep.decoding.work import Budget, Drawing
from data_prep.refusal import Flaw
from data_prep.sources.dicom import Dicom, DicomOptions, alias, draw_frame
from data_prep.sources.dicom_picture import DicomPicture, windowed
from lensmith.images import BadImage, ImageLimits

PLAIN: dict[str, Any] = {"answer": "finding", "prompt": "What is seen?"}
SECRETS = ("MUSTERMANN", "ERIKA", "PAT-778812", "19640812", "ACC-55512", "Dr. Seltsam", "St. Elsewhere")
RAMP = numpy.arange(16 * 16, dtype=numpy.uint16).reshape(16, 16) * 16


def write_dicom(path: Path, pixels: Any = RAMP, **tags: Any) -> Path:
    """A secondary capture full of names and numbers; `tags` are laid over it, None removes one."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["test"])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = Dataset()
    data.file_meta = meta
    data.PatientName = "MUSTERMANN^ERIKA"
    data.PatientID = "PAT-778812"
    data.PatientBirthDate = "19640812"
    data.AccessionNumber = "ACC-55512"
    data.ReferringPhysicianName = "Dr. Seltsam"
    data.InstitutionName = "St. Elsewhere"
    data.StudyDescription = "MUSTERMANN ERIKA 19640812"
    data.add_new(0x00091010, "LO", "PAT-778812")
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    colour = pixels.ndim == 3 and pixels.shape[-1] == 3
    data.Rows, data.Columns = pixels.shape[-3:-1] if colour else pixels.shape[-2:]
    data.SamplesPerPixel = 3 if colour else 1
    data.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        data.PlanarConfiguration = 0
    if pixels.ndim == 3 and not colour:
        data.NumberOfFrames = pixels.shape[0]
    data.BitsAllocated = data.BitsStored = pixels.dtype.itemsize * 8
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    data.PixelData = pixels.tobytes()
    for name, value in tags.items():
        if value is None:
            del data[name]
        else:
            setattr(data, name, value)
    data.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_dicom(tmp_path / "MUSTERMANN_ERIKA.dcm")
    (tmp_path / "labels.csv").write_text("file,finding\nMUSTERMANN_ERIKA.dcm,none\n")
    return tmp_path


def drawn(source: Dicom, path: str) -> bytes:
    asked = source.picture(path)
    assert isinstance(asked, Drawing), asked
    return draw_frame(asked, ImageLimits())


def shown(path: Path, window: Any = "file", number: int = 1) -> numpy.ndarray[Any, Any]:
    image = DicomPicture(path.read_bytes()).frame(number, ImageLimits(), window)
    assert image.mode == "RGB"
    return numpy.asarray(image)[..., 0]


def test_nothing_of_the_patient_comes_out(folder: Path) -> None:
    source = Dicom(folder, DicomOptions(**PLAIN))
    (found,) = source.rows()
    assert found.sample is not None
    (image,) = found.sample.images
    assert (found.place, image.path) == ("labels.csv:2", alias("MUSTERMANN_ERIKA.dcm"))
    png = drawn(source, image.path)
    opened = PIL.Image.open(io.BytesIO(png))
    assert (opened.size, opened.mode, opened.info) == ((16, 16), "RGB", {})
    everything = f"{found} {source.facts()} {source.name}".encode() + png
    for secret in SECRETS:
        assert secret.encode() not in everything
        assert secret.encode() in (folder / "MUSTERMANN_ERIKA.dcm").read_bytes()


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"BurnedInAnnotation": "YES"}, "burned into the picture"),
        ({"RecognizableVisualFeatures": "YES"}, "burned into the picture"),
        ({"PixelData": None}, "holds no picture"),
        ({"PhotometricInterpretation": "MUSTERMANN"}, "neither grey"),
        ({"PixelData": b"ab"}, "cannot be decoded"),
        ({"Rows": 4}, "an edge of at least 8"),
        ({"Rows": 60_000, "Columns": 60_000}, "100,000,000 in all are allowed"),
        ({"WindowCenter": 5, "WindowWidth": 0}, "no width"),
        ({"WindowCenter": 5, "WindowWidth": 10, "VOILUTFunction": "ERIKA"}, "neither LINEAR"),
        ({"BitsAllocated": 17}, "cannot be decoded"),
    ],
)
def test_refusals_say_nothing_of_the_patient(folder: Path, tags: dict[str, Any], said: str) -> None:
    write_dicom(folder / "MUSTERMANN_ERIKA.dcm", **tags)
    source = Dicom(folder, DicomOptions(**PLAIN))
    path = alias("MUSTERMANN_ERIKA.dcm")
    with pytest.raises(BadImage) as error:
        drawn(source, path)
    assert said in error.value.summary
    asked = source.picture(path)
    assert isinstance(asked, Drawing)
    flaw = flaw_for(path, Ending.UNREADABLE, error.value.summary, Budget())
    whole = "".join(traceback.format_exception(error.value)) + str(flaw)
    assert [secret for secret in SECRETS if secret in whole] == []
    assert error.value.__cause__ is error.value.__context__ is None


@pytest.mark.parametrize("size", [0, 50, 140, 200, 400])
def test_torn_files(folder: Path, size: int) -> None:
    data = (folder / "MUSTERMANN_ERIKA.dcm").read_bytes()[:size]
    with pytest.raises(BadImage) as error:
        DicomPicture(data).frame(1, ImageLimits(), "file")
    assert [secret for secret in SECRETS if secret in str(error.value)] == []


def test_burned_in_text_is_kept_where_the_options_say_so(folder: Path) -> None:
    write_dicom(folder / "MUSTERMANN_ERIKA.dcm", BurnedInAnnotation="YES")
    source = Dicom(folder, DicomOptions(**PLAIN, burned_in="keep"))
    assert drawn(source, alias("MUSTERMANN_ERIKA.dcm"))


def test_grey_levels_without_a_window_span_the_pixels(tmp_path: Path) -> None:
    grey = shown(write_dicom(tmp_path / "a.dcm"))
    assert (grey[0, 0], grey[-1, -1]) == (0, 255)
    assert grey[8, 0] == round(128 * 16 / (255 * 16) * 255)


def test_the_files_window_is_applied_after_rescaling(tmp_path: Path) -> None:
    # Stored 0, 16, 32, ...; rescaled -1000, -968, ...: the window 40/400 shows -160 as black, 239 as white.
    path = write_dicom(
        tmp_path / "a.dcm", RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=[40, 9], WindowWidth=[400, 9]
    )
    values = RAMP.astype(float) * 2 - 1000
    expected = numpy.clip((values - 39.5) / 399 + 0.5, 0, 1) * 255
    assert numpy.array_equal(shown(path), numpy.rint(expected))
    assert numpy.array_equal(shown(path, "range"), shown(write_dicom(tmp_path / "b.dcm")))
    assert shown(path, (-1000.0, 2.0))[0, 0] > 0


def test_monochrome1_is_turned_round(tmp_path: Path) -> None:
    plain = shown(write_dicom(tmp_path / "a.dcm"))
    turned = shown(write_dicom(tmp_path / "b.dcm", PhotometricInterpretation="MONOCHROME1"))
    assert numpy.array_equal(turned, 255 - plain)


def test_signed_pixels(tmp_path: Path) -> None:
    pixels = RAMP.astype(numpy.int16) - 2000
    assert numpy.array_equal(
        shown(write_dicom(tmp_path / "a.dcm", pixels)), shown(write_dicom(tmp_path / "b.dcm"))
    )


def test_a_table_of_grey_levels_comes_before_the_window(tmp_path: Path) -> None:
    table = Dataset()
    table.LUTDescriptor = [4096, 0, 12]
    table.LUTData = numpy.arange(4095, -1, -1).astype("<u2").tobytes()
    path = write_dicom(tmp_path / "a.dcm", VOILUTSequence=[table], WindowCenter=5, WindowWidth=5)
    assert numpy.array_equal(shown(path), numpy.rint((4095 - RAMP) / 4095 * 255))


@pytest.mark.parametrize(
    ("function", "value", "expected"),
    [
        ("LINEAR", 0.0, 0),
        ("LINEAR", 255.0, 255),
        ("LINEAR", 128.0, 128),
        ("LINEAR_EXACT", 128.0, 128),
        ("LINEAR_EXACT", 256.0, 255),
        ("SIGMOID", 128.0, 128),
        ("SIGMOID", 1e9, 255),
    ],
)
def test_windows_as_the_standard_defines_them(function: str, value: float, expected: int) -> None:
    assert windowed(numpy.array([value]), 128.0, 256.0, function)[0] == expected


def test_colour(tmp_path: Path) -> None:
    pixels = numpy.zeros((16, 16, 3), numpy.uint8)
    pixels[:8, :, 0] = 200
    image = DicomPicture(write_dicom(tmp_path / "a.dcm", pixels).read_bytes()).frame(1, ImageLimits(), "file")
    assert (image.getpixel((3, 3)), image.getpixel((3, 12))) == ((200, 0, 0), (0, 0, 0))


def test_several_frames_need_a_column(folder: Path) -> None:
    name = "MUSTERMANN_ERIKA.dcm"
    write_dicom(folder / name, numpy.stack([RAMP, RAMP[::-1]]))
    with pytest.raises(BadImage, match="has 2 frames: name one"):
        drawn(Dicom(folder, DicomOptions(**PLAIN)), alias(name))
    (folder / "labels.csv").write_text(f"file,finding,n\n{name},none,2\n{name},none,3\n{name},none,\n")
    source = Dicom(folder, DicomOptions(**PLAIN, frame="n"))
    second, third, none = source.rows()
    assert second.row == f"{alias(name)}#frame=2"
    assert drawn(source, second.row)
    with pytest.raises(BadImage, match="frame 3 is asked for"):
        drawn(source, third.row)
    assert none.flaws[0].what == "the frame is no number"
    assert numpy.array_equal(shown(folder / name, number=2), shown(folder / name)[::-1])


def test_a_compression_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm")
    data = pydicom.dcmread(path)
    data.file_meta.TransferSyntaxUID = JPEGLSLossless
    data.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8" + bytes(40)])
    data.save_as(path)
    with pytest.raises(BadImage, match="JPEG-LS Lossless"):
        shown(path)


def test_run_lengths_are_read(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm")
    data = pydicom.dcmread(path)
    data.compress(pydicom.uid.RLELossless)
    data.save_as(tmp_path / "b.dcm")
    assert numpy.array_equal(shown(tmp_path / "b.dcm"), shown(path))


def test_paths_that_leave_the_folder(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("file,finding\n../PAT-778812.dcm,x\nb.dcm,x\n")
    source = Dicom(tmp_path, DicomOptions(**PLAIN))
    outside = source.picture(alias("../PAT-778812.dcm"))
    missing = source.picture(alias("b.dcm"))
    unknown = source.picture("x")
    assert isinstance(outside, Flaw)
    assert isinstance(missing, Flaw)
    assert isinstance(unknown, Flaw)
    assert [flaw.code for flaw in (outside, missing, unknown)] == [
        "image_path",
        "image_missing",
        "image_missing",
    ]
    assert "PAT-778812" not in str(outside)
