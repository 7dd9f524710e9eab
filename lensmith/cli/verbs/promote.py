"""lensmith promote: put a release into a channel, if it passes the gates."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from lensmith.artifact import Artifact
from lensmith.cli.arguments import home_of
from lensmith.cli.output import print_json
from lensmith.cli.reference import resolve
from lensmith.errors import InputError
from lensmith.home import Home
from lensmith.provenance import ROOT
from serving.registry import CHANNELS

# What a release has to show where nobody names another policy.
POLICY = ROOT / "recipes/gates/default.yaml"


def add_decision(parser: argparse.ArgumentParser, flag: str, *, required: bool) -> None:
    """The channel, and who decides and why."""
    parser.add_argument(flag, dest="channel", choices=CHANNELS, required=required, help="the channel")
    parser.add_argument("--who", required=required, help="who decides this")
    parser.add_argument("--why", required=required, help="the reason, for the log")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's own arguments."""
    parser.add_argument("release", metavar="RELEASE", help="directory, release-id, id, or NAME@CHANNEL")
    add_decision(parser, "--to", required=True)
    parser.add_argument(
        "--policy", default=str(POLICY), metavar="FILE", help="gate policy (recipes/gates/default.yaml)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Raises GateRefused with every demand that is not met."""
    home = home_of(arguments)
    release = resolve(home, arguments.release)
    if release.kind != "release":
        raise InputError(f"{release.short} is not a release")
    channel = promote_release(
        home, release, arguments.channel, arguments.who, arguments.why, Path(arguments.policy)
    )
    if arguments.json:
        print_json(channel)
    else:
        print(f"{channel['name']}@{channel['channel']} is now {release.short}")
    return 0


def promote_release(
    home: Home, release: Artifact, channel: str, who: str, why: str, policy: Path
) -> dict[str, Any]:
    """Promote, and the act that put the release there: an earlier one where it stands there already."""
    from serving.gates import read_policy
    from serving.promote import promote

    return dataclasses.asdict(promote(home, release, channel, who, why, read_policy(policy)))
