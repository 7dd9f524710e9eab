"""lensmith unmerge: refused, with the reason and where the base lies."""

from __future__ import annotations

import argparse

from lensmith.artifact import Artifact
from lensmith.base import checkpoint_path, has_weights
from lensmith.cli.arguments import home_of
from lensmith.cli.reference import resolve
from lensmith.errors import InputError, Problem
from lensmith.home import Home


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's own arguments."""
    parser.add_argument("model", metavar="MODEL", help="directory, kind-id, id, or NAME@CHANNEL")


def run(arguments: argparse.Namespace) -> int:
    """Raises InputError always: what rounding took away cannot be had back."""
    home = home_of(arguments)
    artifact = resolve(home, arguments.model)
    if artifact.kind == "release":
        artifact = home.by_id(artifact.manifest.inputs["model"])
    if artifact.kind != "model":
        mend = "lensmith list model"
        raise InputError(f"{artifact.short} is no merged model", [Problem("nothing was merged", mend=mend)])
    dtype, changed = artifact.body["dtype"], artifact.body["tensors_changed"]
    lost = (
        f"each weight of {changed:,} tensors was rounded to {dtype} after the change was added: many bases"
        " round to these values, and taking the change away would give one that was never trained on"
    )
    raise InputError(
        f"{artifact.short} cannot be unmerged: rounding lost the base's bits",
        [Problem(lost), _base_problem(home, artifact), *_made_of(artifact)],
    )


def _base_problem(home: Home, model: Artifact) -> Problem:
    """Where the base lies that it was merged into, or that it is gone."""
    stated = model.manifest.inputs["base"]
    try:
        base = home.by_id(stated)
    except InputError:
        mend = "the home that it was merged in knows where: bases are not pushed"
        return Problem(f"its base, base-{stated[:12]}, is not in {home.root}", mend=mend)
    place = checkpoint_path(base)
    revision = f", revision {base.body['revision']}" if base.body["revision"] else ""
    if not has_weights(place):
        return Problem(f"its base is {base.short}{revision}, and no longer at {place}", mend="fetch it again")
    return Problem(f"its base is {base.short}{revision}", str(place), "use it as it lies there")


def _made_of(model: Artifact) -> list[Problem]:
    named = [
        f"{role} {given[:12]}" for role, given in sorted(model.manifest.inputs.items()) if role != "base"
    ]
    return [Problem(f"what was merged into it: {', '.join(named)}", mend="lensmith show, lensmith verify")]
