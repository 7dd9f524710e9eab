"""lensmith serve: serve a release with vLLM until stopped."""

from __future__ import annotations

import argparse

from lensmith.artifact import Artifact
from lensmith.cli.arguments import home_of
from lensmith.cli.output import note
from lensmith.cli.reference import resolve
from lensmith.errors import InputError, Problem
from lensmith.home import Home
from lensmith.signals import Stopped


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's own arguments."""
    parser.add_argument("release", metavar="RELEASE", help="NAME@CHANNEL, or a release or profile")
    parser.add_argument("--port", type=int, help="another port than the profile's")


def run(arguments: argparse.Namespace) -> int:
    """Serve in the foreground; Ctrl-C or SIGTERM ends it with no process left."""
    from serving.serve import serve

    home = home_of(arguments)
    profile = profile_of(home, resolve(home, arguments.release))
    try:
        return serve(home, profile, arguments.port, as_json=arguments.json)
    except (KeyboardInterrupt, Stopped):
        # A server is meant to be stopped: that is its good end.
        note("stopped")
        return 0


def profile_of(home: Home, artifact: Artifact) -> Artifact:
    """The profile that serves a release, or the profile itself."""
    if artifact.kind == "release":
        return home.by_id(artifact.manifest.inputs["profile"])
    if artifact.kind == "profile":
        return artifact
    raise InputError(
        f"{artifact.short} cannot be served",
        [Problem("only a release or a profile can", mend="lensmith list release")],
    )
