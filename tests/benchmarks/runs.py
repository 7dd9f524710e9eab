"""Running a benchmark as people do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# What every benchmark's line begins with.
KEYS = ["name", "ratio", "ours", "baseline", "unit", "ours_peak_mb", "baseline_peak_mb"]


def run(name: str, *arguments: str) -> tuple[dict[str, Any], str]:
    """The last line of a benchmark that ended well, and what it said beside it."""
    argv = [sys.executable, f"benchmarks/{name}.py", *arguments]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def committed(name: str) -> dict[str, Any]:
    """The result that is committed."""
    return json.loads((ROOT / f"benchmarks/results/{name}.json").read_bytes())
