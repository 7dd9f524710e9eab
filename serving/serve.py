"""Serving in the foreground until a signal comes.

python -m serving.serve PROFILE_DIR --home DIR [--port N]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from lensmith.artifact import Artifact, open_artifact
from lensmith.attestation import attestations, last_word
from lensmith.errors import InputError, LensmithError, Problem
from lensmith.home import Home
from serving.advisories import start_lines
from serving.build import installed_engine
from serving.command import is_live
from serving.engine import Engine, running_engine
from serving.host import is_local
from serving.profile import images_differ, read_profile
from serving.profile_file import Profile
from serving.proven import check_proven

_POLL_S = 0.5


def serve(home: Home, artifact: Artifact, port: int | None = None, *, as_json: bool = False) -> int:
    """Serve a profile artifact in the foreground; `port` instead of the profile's.

    Once it answers, prints how to reach it, as one JSON object where a program asked.

    Ends when a signal's handler raises, with every process of the engine gone. Raises InputError where the
    engine ends by itself, where the installed vLLM is built for another device or is not one that a serve
    proof passed with, or where an address beyond this machine is asked for without VLLM_API_KEY; GateRefused
    where the serve proof under these settings failed, or other machines would be answered without one. Where
    none was made, the first line on stderr says so.
    """
    profile = read_profile(artifact)
    check_version(profile, home)
    check_address(profile)
    if is_live(profile):
        problem = Problem(
            f"{artifact.short} starts with no adapter", mend="lensmith serve RELEASE loads them"
        )
        raise InputError("a live profile is served by releases", [problem])
    if said := check_proven(home, artifact, profile, installed_engine().version):
        print(said, file=sys.stderr)
    if known := images_differ(profile.family, profile.engine.device):
        print(f"answers about images differ from the trained model's: {known}", file=sys.stderr)
    with running_engine(artifact, home, profile.port if port is None else port) as engine:
        for told in start_lines(engine.version, engine.advisories):
            print(told, file=sys.stderr)
        print(reach(engine) if as_json else greeting(engine), flush=True)
        while engine.alive():
            time.sleep(_POLL_S)
        raise engine.stopped("by itself")


def reach(engine: Engine) -> str:
    """The greeting for programs."""
    advisories = [each.facts() for each in engine.advisories]
    told = {"url": engine.url, "model": engine.model_name, "log": str(engine.log), "advisories": advisories}
    return json.dumps(told)


def greeting(engine: Engine) -> str:
    """What the operator sees once the server is up: the address, the log, a request to copy."""
    content = [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,$(base64 -w0 form.png)"}},
        {"type": "text", "text": "Read the form."},
    ]
    body = json.dumps({"model": engine.model_name, "messages": [{"role": "user", "content": content}]})
    quoted = body.replace("$(", "'\"$(").replace("png)", "png)\"'")
    key = ' -H "Authorization: Bearer $VLLM_API_KEY"' if os.environ.get("VLLM_API_KEY") else ""
    return (
        f"serving {engine.model_name} at {engine.url}/v1 (vLLM {engine.version}; log: {engine.log})\n"
        f"try it: echo '{quoted}' |\n"
        f"  curl -s {engine.url}/v1/chat/completions -H 'Content-Type: application/json'{key} -d @-\n"
        "Ctrl-C stops it."
    )


def check_version(profile: Profile, home: Home) -> None:
    """Raise InputError unless the installed vLLM is the profile's, or one whose last serve proof passed."""
    installed = installed_engine()
    if installed.device != profile.engine.device:
        mend = "derive a profile here: lensmith evaluate RECIPE"
        raise InputError(
            f"the profile was derived for a {profile.engine.device} engine",
            [Problem(f"the vLLM of this environment is built for {installed.device}", mend=mend)],
        )
    if installed.version == profile.engine.version:
        return
    proofs = [
        proof
        for proof in attestations(home, profile.subject, "serve-proof")
        if proof.statement.get("engine_version") == installed.version
    ]
    if not proofs or not last_word(proofs).passed:
        what = f"its proof of {last_word(proofs).second} failed" if proofs else "no serve proof passed"
        raise InputError(
            f"vLLM {installed.version} is installed, the profile was derived for {profile.engine.version}",
            [Problem(f"{what} with this version", mend="prove it: lensmith evaluate RECIPE")],
        )


def check_address(profile: Profile) -> None:
    """Raise InputError where other machines reach the profile's address and no API key is set."""
    if not is_local(profile.host) and not os.environ.get("VLLM_API_KEY"):
        raise InputError(
            f"serving on {profile.host} is open to other machines",
            [
                Problem(
                    "VLLM_API_KEY is not set",
                    "serve.host",
                    "set it; or use 127.0.0.1",
                )
            ],
        )


def main(argv: list[str]) -> int:
    """The program: serves until SIGINT, SIGTERM or SIGHUP; gives the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("profile", type=Path, help="directory of a profile artifact")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--port", type=int, help="0 takes a free one")
    arguments = parser.parse_args(argv)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        return serve(Home(arguments.home), open_artifact(arguments.profile, "profile"), arguments.port)
    except KeyboardInterrupt:
        return 0
    except LensmithError as error:
        print(error, file=sys.stderr)
        return error.exit_code


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
