"""Run an engine with its caches off until killed: python tests/serving/hold_engine.py PROFILE_DIR HOME"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from lensmith.artifact import open_artifact
from lensmith.home import Home
from serving.engine import running_engine
from serving.serve import greeting

with running_engine(
    open_artifact(Path(sys.argv[1]), "profile"), Home(Path(sys.argv[2])), proof=True
) as engine:
    print(greeting(engine), flush=True)
    time.sleep(3600)
