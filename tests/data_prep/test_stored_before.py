"""Pictures that an earlier dataset holds: what is said of one is said again, whoever writes meanwhile."""

from __future__ import annotations

from data_prep.prepare import prepare
from data_prep.seen import Seen
from data_prep.split import SplitName
from data_prep.stored_before import StoredBefore
from data_prep.written import Written
from lensmith.dataset import HELD_OUT_FILE, split_file
from lensmith.home import Home
from lensmith.images import ImageLimits
from lensmith.row_file import RowFile
from tests.data_prep.folder import Folder


def test_what_another_process_remembers_meanwhile_changes_no_answer(folder: Folder, home: Home) -> None:
    folder.fill()
    prepared = prepare(folder.recipe(), home)
    dataset, held_out = prepared.dataset, prepared.held_out
    (home.root / "cache/stored.sqlite").unlink()
    written: dict[SplitName, Written] = {
        "train": Written.read_back(dataset.path / split_file("train")),
        "validation": Written.read_back(dataset.path / split_file("validation")),
        "held_out": Written.read_back(held_out.path / HELD_OUT_FILE),
    }
    image = next(RowFile(written["train"].path).images())
    seen = Seen(image.width, image.height, b"", bytes.fromhex(image.digest), image.fingerprint)
    with StoredBefore(home, ImageLimits()) as one, StoredBefore(home, ImageLimits()) as other:
        assert one.find(seen) is None
        other.remember(dataset, held_out, written)
        assert one.find(seen) is None
        assert other.find(seen) == image
        one.remember(dataset, held_out, written)
        assert one.find(seen) == image
