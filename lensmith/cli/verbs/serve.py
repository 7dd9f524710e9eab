"""lensmith serve: serve a release with vLLM until stopped."""

from __future__ import annotations

import argparse

from lensmith.artifact import Artifact, verify
from lensmith.cli.arguments import home_of
from lensmith.cli.output import note
from lensmith.cli.reference import resolve
from lensmith.errors import InputError, Problem
from lensmith.home import Home
from lensmith.signals import Stopped


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's own arguments."""
    parser.add_argument(
        "releases",
        metavar="RELEASE",
        nargs="+",
        help="NAME@CHANNEL, or a release or profile; of serve.live several, beside one base",
    )
    parser.add_argument("--port", type=int, help="another port than the profile's")


def run(arguments: argparse.Namespace) -> int:
    """Serve in the foreground; Ctrl-C or SIGTERM ends it with no process left.

    Raises IntegrityError where a release's own files were edited: its copy of the profile would promise what
    is not served.
    """
    home = home_of(arguments)
    named = [resolve(home, each) for each in arguments.releases]
    for release in (each for each in named if each.kind == "release"):
        verify(release)
    profiles = [profile_of(home, each) for each in named]
    try:
        if len(named) > 1 or (named[0].kind == "release" and _is_live(profiles[0])):
            from serving.live import serve_live

            return serve_live(home, named, arguments.port, as_json=arguments.json)
        from serving.serve import serve

        return serve(home, profiles[0], arguments.port, as_json=arguments.json)
    except (KeyboardInterrupt, Stopped):
        # A server is meant to be stopped: that is its good end.
        note("stopped")
        return 0


def _is_live(profile: Artifact) -> bool:
    from serving.command import is_live
    from serving.profile import read_profile

    return is_live(read_profile(profile))


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
