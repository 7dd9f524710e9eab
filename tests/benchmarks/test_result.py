"""The committed file says what a line was measured on, and a side's last line is what counts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from benchmarks.result import last_line, one_thread, write


def test_the_file_begins_with_the_line_and_states_machine_and_versions(tmp_path: Path) -> None:
    write(tmp_path / "results" / "x.json", {"name": "x", "ratio": 2.0}, ("numpy",), {"files": 3})
    content = json.loads((tmp_path / "results" / "x.json").read_bytes())
    assert list(content) == ["name", "ratio", "date", "hardware", "versions", "files"]
    assert content["versions"] == {"python": sys.version.split()[0], "numpy": version("numpy")}
    assert content["hardware"].startswith(f"{os.cpu_count()} cores, ")


def test_a_side_ends_with_its_json_and_a_failed_one_is_an_error(tmp_path: Path) -> None:
    side = tmp_path / "side.py"
    side.write_text("import os, json; print('hello'); print(json.dumps(os.environ['OMP_NUM_THREADS']))")
    assert last_line([str(side)], one_thread()) == "1"
    side.write_text("print('{}'); raise SystemExit(3)")
    with pytest.raises(subprocess.CalledProcessError):
        last_line([str(side)], one_thread())
