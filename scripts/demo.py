"""The demo: from handed-over forms to a promoted model that a real vLLM server answers with.

python scripts/demo.py [--home workspace]

Makes the forms and the tiny base where they are not there, runs the default recipe through every stage,
serves what was promoted, asks it one form, stops the server, and prints one table.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx

from lensmith.cli.summary import summary_text
from lensmith.dataset import read_split
from lensmith.files import digest_file, digest_json
from lensmith.home import Home
from lensmith.process import run_child, stop_tree
from lensmith.row_file import Row
from lensmith.sample import Text

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "scripts"
RECIPE = ROOT / "recipes/bank_forms/qwen3_vl_tiny_lora.yaml"
LENSMITH = str(Path(sys.executable).with_name("lensmith"))
FORMS = ROOT / "workspace/bank_forms"
BASE = ROOT / "workspace/tiny_qwen3_vl"
SERVER_START_S = 300


def main() -> int:
    """Walk the whole path; gives the exit code of the first command that failed."""
    # OpenMP's threads spin while they wait: several times slower on cores that others use too.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--home", type=Path, default=ROOT / "workspace")
    home = parser.parse_args().home.resolve()
    started = time.monotonic()
    make(FORMS, "A domain team hands over its labelled forms", "make_bank_forms.py", "bank_forms")
    what = "A base model that reads print, not handwriting (a tiny Qwen3-VL, taught here)"
    make(BASE, what, "make_tiny_base.py", "tiny_base", "bank_forms")
    step("The recipe, stage by stage: prepare, train, merge, prove, serve, evaluate, release, promote")
    decision = ("--promote", "production", "--who", "demo", "--why", "reads handwriting, proven and better")
    summary = json.loads(call(LENSMITH, "run", str(RECIPE), "--home", str(home), "--json", *decision))
    step(f"lensmith serve {summary['release']['name']}@production answers a form it was not trained on")
    print(ask_server(home, summary), file=sys.stderr)
    print(
        f"\n{summary_text(summary)}\n\nThe whole walk took {(time.monotonic() - started) / 60:.1f} minutes."
    )
    return 0


def step(title: str) -> None:
    """A heading on stderr."""
    print(f"\n== {title}", file=sys.stderr, flush=True)


def make(out: Path, what: str, script: str, *packages: str) -> None:
    """Make the folder `out` with a script, unless this very code made it already.

    A stamp beside the folder says which code made it. A folder without a stamp is somebody's own: it is
    taken as it is.
    """
    files = [SCRIPTS / script, *sorted(path for name in packages for path in (SCRIPTS / name).rglob("*.*"))]
    code = digest_json([[path.name, digest_file(path)] for path in files if path.suffix != ".pyc"])
    stamp = out.with_name(f".{out.name}.made-by")
    if out.is_dir():
        if not stamp.is_file() or stamp.read_text() == code:
            return
        shutil.rmtree(out)
    step(what)
    stamp.parent.mkdir(parents=True, exist_ok=True)
    # The stamp first: the script renames the finished folder into place, so a kill leaves no folder.
    stamp.write_text(code)
    call(sys.executable, str(SCRIPTS / script), str(out))


def call(*command: str) -> str:
    """Run a command to its end, its progress shown; gives its stdout. Exits with its code where it fails."""
    process = run_child(command, stdout=subprocess.PIPE)
    try:
        output, _ = process.communicate()
    finally:
        stop_tree(process)
    if process.returncode:
        sys.exit(process.returncode)
    return output.decode()


def ask_server(home: Path, summary: dict) -> str:
    """Start the promoted release, ask it one validation form over HTTP, stop it; gives both answers."""
    opened = Home(home)
    row = read_split(opened.by_id(summary["dataset"]["id"]), "validation")[0]
    reference = f"{summary['release']['name']}@production"
    process = run_child([LENSMITH, "serve", reference, "--home", str(home), "--json"], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            sys.exit(process.wait() or 1)
        server = json.loads(line)
        answer = ask(server["url"], server["model"], row)
        process.send_signal(signal.SIGTERM)
        if code := process.wait(60):
            sys.exit(code)
    finally:
        stop_tree(process)
    return f"   the form says  {row.sample.answer}\n   vLLM answers   {answer}"


def ask(url: str, model: str, row: Row) -> str:
    """One chat completion with the row's prompt and image."""
    images = iter(row.images)
    content = []
    for part in row.sample.prompt[-1].parts:
        if isinstance(part, Text):
            content.append({"type": "text", "text": part.text})
        else:
            data = base64.b64encode(next(images)).decode()
            content.append({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}})
    request = {"model": model, "messages": [{"role": "user", "content": content}], "temperature": 0}
    reply = httpx.post(f"{url}/v1/chat/completions", json=request, timeout=SERVER_START_S)
    reply.raise_for_status()
    return reply.json()["choices"][0]["message"]["content"]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\ndemo: stopped; make demo goes on from here", file=sys.stderr)
        sys.exit(130)
