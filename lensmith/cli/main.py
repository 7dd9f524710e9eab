"""`lensmith VERB …`: finds the verb's module, runs it, turns errors into exit codes.

Exit codes: 0 done, or a training saved and stopped by SIGTERM; 1 a bug; 2 the user's input is wrong; 3 a gate
refused; 4 an integrity check failed; 130 stopped by Ctrl-C or a signal.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from types import ModuleType

from lensmith.large_imports import QuickExit
from lensmith.left_out import UNUSED, leave_out

# One line a verb; the module of the same name holds `add_arguments(parser)` and `run(arguments)`.
VERBS = {
    "run": "all stages of a recipe; what is already there is skipped",
    "doctor": "what this machine has, what is missing, how to mend it",
    "inspect": "what a folder or export holds: rows, broken pictures, copies; needs no recipe, makes nothing",
    "plan": "what a run would do: rows, tokens, parameters, memory, steps; starts nothing",
    "preview": "samples as the model will see them, and which tokens carry loss",
    "prepare": "check and split labelled data into a dataset and a sealed held-out set",
    "export": "write a dataset's rows in the formats of other tools, or for labellers to correct",
    "forget": "find all that a person's or a source's rows reached, and refuse them from now on",
    "train": "fine-tune with accelerate; goes on from the last complete checkpoint",
    "launch": "write what starts a training on other machines: a script, sbatch, a Kubernetes JobSet",
    "merge": "base and adapter, or several, into one checkpoint, with the merge proof",
    "unmerge": "why a base is not to be had back from merged weights, and where it lies",
    "evaluate": "serve base and tuned with vLLM, ask the held-out set, prove and report",
    "release": "bundle model, profile, proofs and reports under a name",
    "promote": "put a release into staging or production, if it passes the gates",
    "rollback": "put the previous release of a channel back",
    "serve": "serve a release with vLLM: lensmith serve NAME@production; several adapters beside one base",
    "load": "load a release's adapter into a live server, proven before and asked after",
    "unload": "take an adapter out of a live server",
    "live": "which adapters a live server has",
    "loadtest": "how fast a release answers at rising load: throughput, waiting, saturation",
    "verify": "re-hash an artifact and everything it was made from",
    "push": "copy an artifact to any store: s3://, gs://, sftp://, file://, ...",
    "pull": "copy an artifact from a store into this home, every file checked",
    "list": "the artifacts of a home",
    "show": "one artifact: what it is, what it was made from, what was attested of it",
    "log": "who put which release where, when and why",
    "diff": "what differs between two artifacts of a kind",
}


def entry() -> None:
    """The console script."""
    ending = QuickExit()
    # OpenMP's threads spin while they wait: several times slower on cores that others use too.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Nothing is ever fetched: without this PEFT asks the hub for a base that lies on this disk.
    os.environ["HF_HUB_OFFLINE"] = "1"
    leave_out(*UNUSED)
    try:
        code = main(sys.argv[1:])
        # All is done and said: Ctrl-C while the interpreter shuts down is not another end.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    except KeyboardInterrupt:
        # It came before the verb began: nothing was started.
        code = 130
    ending.exit(code)


def main(argv: list[str]) -> int:
    """Run one command line; gives the exit code. Errors go to stderr in a few lines."""
    if not argv or argv[0] in ("-h", "--help"):
        print(overview())
        return 0
    if argv[0] == "--version":
        from lensmith import __version__

        print(f"lensmith {__version__}")
        return 0
    if argv[0] not in VERBS:
        print(_unknown(argv[0]), file=sys.stderr)
        return 2
    module = verb_module(argv[0])
    parser = verb_parser(argv[0], module)
    return _guarded(module, parser.parse_args(argv[1:]))


def verb_module(verb: str) -> ModuleType:
    """The module of a verb."""
    return importlib.import_module(f"lensmith.cli.verbs.{verb}")


def verb_parser(verb: str, module: ModuleType) -> argparse.ArgumentParser:
    """The argument parser of one verb, the options that every verb has included."""
    parser = argparse.ArgumentParser(prog=f"lensmith {verb}", description=VERBS[verb], allow_abbrev=False)
    module.add_arguments(parser)
    group = parser.add_argument_group("everywhere")
    group.add_argument(
        "--home", metavar="DIR", default="workspace", help="where artifacts live (./workspace)"
    )
    group.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    group.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def overview() -> str:
    """What `lensmith --help` prints."""
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:<{width}}  {text}" for verb, text in VERBS.items())
    return (
        "usage: lensmith VERB [options]\n\n"
        "Labelled images in, a proven vision-language model in production out.\n\n"
        f"{verbs}\n\n"
        "lensmith VERB --help tells a verb's options. Exit codes: 0 done (or training was told to stop\n"
        "by SIGTERM, and has saved), 2 wrong input, 3 a gate refused,\n"
        "4 an integrity check failed, 1 a bug, 130 stopped."
    )


def _unknown(verb: str) -> str:
    import difflib

    close = difflib.get_close_matches(verb, VERBS, n=1)
    hint = f"did you mean {close[0]!r}?" if close else "lensmith --help lists them"
    return f"lensmith: no verb is called {verb!r}: {hint}"


def _guarded(module: ModuleType, arguments: argparse.Namespace) -> int:
    from lensmith.cli.stop import stop_on_signals
    from lensmith.errors import LensmithError
    from lensmith.signals import Stopped

    try:
        with stop_on_signals():
            return int(module.run(arguments) or 0)
    except LensmithError as error:
        if arguments.debug:
            raise
        _report(error, arguments)
        return error.exit_code
    except (KeyboardInterrupt, Stopped):
        print("\nlensmith: stopped; the same command, given again, finishes it", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader (head, less) left: what is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if arguments.debug:
            raise
        print(f"lensmith: a bug: {type(error).__name__}: {error}\n  --debug shows where", file=sys.stderr)
        return 1


def _report(error: Exception, arguments: argparse.Namespace) -> None:
    from lensmith.errors import LensmithError

    assert isinstance(error, LensmithError)
    print(f"lensmith: {error}", file=sys.stderr)
    if arguments.json:
        from lensmith.cli.output import print_json

        problems = [
            {"what": problem.what, "where": problem.where, "mend": problem.mend} for problem in error.problems
        ]
        name = "error" if error.exit_code else "stopped"
        print_json({name: {"summary": error.summary, "problems": problems, "exit_code": error.exit_code}})
