"""What every benchmark does: a side a process, and the committed file around its line."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any


def one_thread(**more: str) -> dict[str, str]:
    """The environment of a side: its libraries compute with one thread."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **more}


def last_line(argv: Sequence[str], environment: Mapping[str, str]) -> dict[str, Any]:
    """The JSON that a side, run as a process of its own, ends with. Raises CalledProcessError."""
    done = subprocess.run([sys.executable, *argv], env=environment, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def write(path: Path, line: Mapping[str, Any], packages: Sequence[str], facts: Mapping[str, Any]) -> None:
    """Write the line with what it was measured on, and further `facts`."""
    # Imported here: a GPU's bare image must be told what it lacks, this among it.
    import psutil

    memory = psutil.virtual_memory().total / 1e9
    around = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": f"{os.cpu_count()} cores, {memory:.0f} GB, no GPU is used",
        "versions": {"python": sys.version.split()[0], **{name: version(name) for name in packages}},
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({**line, **around, **facts}, indent=2) + "\n")
