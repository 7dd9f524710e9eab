"""Files that were changed by hand are not overwritten."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune.cluster.seal import is_untouched, write_sealed
from finetune.cluster.write import write_job
from lensmith.errors import InputError
from tests.finetune.cluster.jobs import job


def test_written_anew_for_another_recipe(tmp_path: Path) -> None:
    path = write_job(job("slurm"), tmp_path / "new" / "folder")
    before = path.read_text()
    assert write_job(job("slurm", queue="gpu"), path.parent) == path
    assert "--partition=gpu" in path.read_text()
    write_job(job("slurm"), path.parent)
    assert path.read_text() == before
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("changed", [("--nodes=1", "--nodes=2"), ("#SBATCH --requeue\n", ""), ("\n", "\r\n")])
def test_a_changed_file_stays(changed: tuple[str, str], tmp_path: Path) -> None:
    path = write_job(job("slurm"), tmp_path)
    path.write_bytes(path.read_text().replace(*changed).encode())
    mine = path.read_bytes()
    with pytest.raises(InputError, match=r"is not overwritten(.|\n)*--force"):
        write_job(job("slurm"), tmp_path)
    assert path.read_bytes() == mine
    write_job(job("slurm"), tmp_path, force=True)
    assert is_untouched(path.read_bytes())


@pytest.mark.parametrize("content", [b"", b"#!/bin/bash\n", b"\xff\xfe"])
def test_a_file_of_somebody_else_stays(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "bank-forms.sbatch").write_bytes(content)
    with pytest.raises(InputError, match="was not written by this command"):
        write_job(job("slurm"), tmp_path)
    assert (tmp_path / "bank-forms.sbatch").read_bytes() == content


def test_a_place_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="nothing can be written there"):
        write_job(job("local"), tmp_path / "file")
    (tmp_path / "bank-forms.local.sh").mkdir()
    with pytest.raises(InputError, match="nothing can be written there"):
        write_sealed(tmp_path / "bank-forms.local.sh", "x")
