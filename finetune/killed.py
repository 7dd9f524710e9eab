"""Training processes that were killed from outside, as what launched them tells it in the log. No torch."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass

from lensmith.errors import LensmithError, Problem

# torch.distributed.elastic.multiprocessing of 2.13: what ended first, and what it then ended itself.
_OF_SEVERAL = re.compile(
    r"^ *rank +: (\d+) \(local_rank: \d+\)\n *exitcode +: -(\d+) \(pid: (\d+)\)", re.MULTILINE
)
_TOLD_TO_END = re.compile(r"Sending process (\d+) closing signal")
# What accelerate 1.15 raises where it started one process itself.
_ALONE = re.compile(
    r"^subprocess\.CalledProcessError: .* "
    r"(?:died with <Signals\.(\w+): \d+>|returned non-zero exit status \d+)\.$",
    re.MULTILINE,
)
_TRACEBACK = "Traceback (most recent call last):"
_MENDS = {
    signal.SIGKILL: "the kernel does this where the machine's memory is full, and tells it in dmesg: lower "
    "train.batch_size, or start fewer processes; else somebody did it",
    signal.SIGABRT: "NCCL does this where another process kept it waiting longer than "
    "train.collective_timeout, and says so in the log (Watchdog caught collective operation timeout)",
    signal.SIGBUS: "shared memory is full: in a container raise its size (docker --shm-size, k8s --shm)",
}


@dataclass(frozen=True)
class Killed:
    """process: its rank. number: of the signal that ended it."""

    process: int
    number: int

    @property
    def signal(self) -> str:
        """The signal's name."""
        return signal.Signals(self.number).name


def killed_process(log: str) -> Killed | None:
    """The process that a signal ended, of the training whose output is `log`; None where none was.

    Of several, where one ends the launcher ends the others: those are not meant.
    """
    alone = _ALONE.search(log)
    if alone is not None:
        return Killed(0, signal.Signals[alone.group(1)]) if alone.group(1) else None
    told = set(_TOLD_TO_END.findall(log))
    found = [
        Killed(int(rank), int(number)) for rank, number, pid in _OF_SEVERAL.findall(log) if pid not in told
    ]
    return min(found, key=lambda each: each.process, default=None)


def without_launcher(log: str) -> str:
    """`log` without what accelerate says at its end of the one process that it started."""
    return log[: log.rindex(_TRACEBACK)] if _ALONE.search(log) and _TRACEBACK in log else log


def was_killed(killed: Killed, processes: int, step: int | None) -> LensmithError:
    """The error for it. step: that of the last checkpoint, None without any."""
    mend = _MENDS.get(signal.Signals(killed.number), "the log may say more")
    goes_on = f"goes on from step {step}" if step else "begins again: there is no checkpoint yet"
    return LensmithError(
        f"training process {killed.process} of {processes} (counted from 0) was killed",
        [
            Problem(f"ended by {killed.signal}", f"process {killed.process}", mend),
            Problem(f"the same command, given again, {goes_on}"),
        ],
    )
