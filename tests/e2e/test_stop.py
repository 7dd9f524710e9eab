"""Ctrl-C in every stage: a clean stop, and the same command goes on.

The recipe merges another's adapter in, so that the one engine start shows a combined model served, too.
"""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from lensmith.attestation import attestations
from lensmith.home import Home
from tests.e2e.aftermath import assert_dead, assert_nothing_half
from tests.e2e.command import run, start

# A stage's line on stderr, and how the next Ctrl-C finds it under way.
STAGES = ("prepare", "train", "merge", "merge proof", "trace", "reference", "report", "release")
QUICK = ("report", "release")

pytestmark = [pytest.mark.slow, pytest.mark.vllm, pytest.mark.e2e]


def test_ctrl_c_in_every_stage(
    arguments: list[str], outside: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("ctrl-c") / "home"
    adapters = [{"path": str(outside), "weight": 0.3}]
    combination = {"method": "ties", "density": 0.5, "weight": 0.7, "adapters": adapters}
    words = [*arguments, "--home", str(home), "-s", f"merge={json.dumps(combination)}"]
    for stage in STAGES:
        command = start(words)
        assert command.wait_for_line(f"  {stage} ..."), command.err
        time.sleep(0 if stage in QUICK else 0.3)
        command.signal_group(signal.SIGINT)
        code = command.wait(60)
        assert_dead(command)
        assert_nothing_half(home)
        if stage in QUICK and code == 0:
            # It takes a tenth of a second, and so does the rest: the signal may come when all is done.
            continue
        assert code == 130, f"{stage}: {code}\n{command.err}"
        assert "Traceback" not in command.err, command.err
        assert "stopped; the same command, given again, finishes it" in command.err
    command = run([*words, "--json"])
    assert command.process.returncode == 0, command.err
    assert_combined_and_served(Home(home), json.loads("".join(command.out))["release"]["id"])


def assert_combined_and_served(home: Home, release_id: str) -> None:
    """The release serves the run merged with the other's adapter, and both proofs say so."""
    release = home.by_id(release_id)
    model = home.by_id(release.body["subject"])
    assert model.body["combination"]["weights"] == [0.7, 0.3]
    taken_in = home.by_id(model.manifest.inputs["adapter_1"])
    (merge_proof,) = attestations(home, model.id, "merge-proof")
    (serve_proof,) = attestations(home, model.id, "serve-proof")
    for proof in (merge_proof, serve_proof):
        assert proof.passed
    # Answered by vLLM, and in transformers by the base with the combination: the run alone would differ.
    reference = home.by_id(serve_proof.evidence["reference_trace"])
    assert reference.manifest.inputs["adapter_1"] == taken_in.id
    statement = serve_proof.statement
    assert statement["rows_equal"] == statement["rows"] > 0
    assert statement["rows_live"] > 0
    card = (release.path / "README.md").read_text()
    assert "was combined by TIES (arXiv 2306.01708), density 0.5." in card
    assert f"| `{taken_in.short}`, from outside" in card
    assert "| 0.3 | others | acme/receipts | mit |" in card
    verified = run(["verify", release.short, "--home", str(home.root)])
    assert verified.process.returncode == 0, verified.err
    assert taken_in.short in "".join(verified.out)
