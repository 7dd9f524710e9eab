"""Whether the machines of a training really share its home."""

from __future__ import annotations

import secrets
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

from lensmith.errors import InputError, Problem


def check_shared(work: Path, state: PartialState) -> None:
    """Raise InputError, on every process, where one of them does not see what the first one writes.

    Homes of one path that every machine has for itself look the same until the first checkpoint, of which
    each would hold a part. The name is new each time: no machine remembers that it was not there.
    """
    name = [secrets.token_hex(8)]
    broadcast_object_list(name)
    mark = work / f"shared-{name[0]}"
    if state.is_main_process:
        mark.touch()
    state.wait_for_everyone()
    blind = gather_object([] if mark.is_file() else [state.process_index])
    if state.is_main_process:
        mark.unlink()
    if blind:
        who = ", ".join(map(str, blind))
        what = f"process {who} of {state.num_processes} does not see what process 0 writes"
        mend = "give a folder that all machines share, at the same path on each: --home DIR"
        raise InputError("the machines do not share the home", [Problem(what, str(work), mend)])
