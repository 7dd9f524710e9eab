"""`python -m lensmith.undisturbed MODULE ARGUMENT...` runs a module as `python -m` does, deaf to SIGTERM.

For a program that only waits for those it starts, where all of them get the signal together: it ends when
they have. What it starts hears SIGTERM as ever, which it would not if the signal was ignored.
"""

from __future__ import annotations

import runpy
import signal
import sys

from lensmith.signals import Noted

if __name__ == "__main__":
    del sys.argv[0]
    signal.signal(signal.SIGTERM, Noted().note)
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
