"""What is known against the installed vLLM, by its version alone: `serve` judges the settings of a start."""

from __future__ import annotations

from lensmith.cli.doctor.check import Check
from lensmith.errors import InputError
from serving.advisories import read_advisories, refuse_uncovered
from serving.build import installed_engine

NAME = "vLLM's advisories"


def check_advisories() -> Check:
    """Those that hit the installed version: a warning where no setting keeps one of them out,
    missing where vLLM is older than what they were looked for of."""
    try:
        version = installed_engine().version
    except InputError:
        return Check(NAME, "ok", "none: vLLM is not installed")
    try:
        refuse_uncovered(version)
    except InputError as error:
        return Check(NAME, "missing", error.summary, error.problems[0].mend)
    hits = [each for each in read_advisories() if each.hits(version)]
    open_ones = [each.ids[0] for each in hits if not each.mitigated_by]
    if open_ones:
        mend = "upgrade vLLM, or serve on 127.0.0.1: elsewhere lensmith serve refuses it"
        return Check(NAME, "warning", f"open in {version}: {', '.join(open_ones)}", mend)
    kept_out = f"kept out by settings: {', '.join(each.ids[0] for each in hits)}"
    return Check(NAME, "ok", kept_out if hits else f"none is known of {version}")
