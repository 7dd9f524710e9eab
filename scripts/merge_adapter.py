"""Merge an adapter that another tool has trained, or another version of transformers, into its base.

    python scripts/merge_adapter.py ADAPTER --base DIR --family NAME --out DIR

ADAPTER is a folder with adapter_config.json and adapter_model.safetensors as PEFT, ms-swift, LLaMA-Factory
or Unsloth leave it; names of modules from transformers 4.51 on are known. OUT becomes a checkpoint like the
base: take it as `base.path` of a recipe to examine it, to go on training from it, or to serve it. The adapter
in today's names stays beside it in OUT.adapter. Killed and run again, it goes on. The base is not changed.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from finetune.merging.checkpoint import open_checkpoint  # noqa: E402
from finetune.merging.companions import copy_companions  # noqa: E402
from finetune.merging.outside import rewrite_adapter  # noqa: E402
from finetune.merging.weights import merge_adapter  # noqa: E402
from lensmith import families  # noqa: E402
from lensmith.base import check_base  # noqa: E402
from lensmith.errors import InputError, LensmithError, Problem  # noqa: E402
from lensmith.files import digest_file, digest_json  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="merge an outside adapter into its base")
    parser.add_argument("adapter", type=Path, help="the folder with adapter_config.json")
    parser.add_argument("--base", type=Path, required=True, help="the checkpoint it was trained on")
    parser.add_argument("--family", required=True, help="the base's family, as in a recipe")
    parser.add_argument("--out", type=Path, required=True, help="the folder that becomes the checkpoint")
    given = parser.parse_args(argv)
    try:
        merge(given.adapter, given.base, given.family, given.out)
    except LensmithError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def merge(adapter: Path, base: Path, name: str, out: Path) -> None:
    """Raises InputError where `out` exists, or the adapter does not fit the base; see `rewrite_adapter`."""
    family = families.get(name)
    check_base(base, family)
    if out.exists():
        raise InputError(f"{out} exists", [Problem("it would be written over", mend="name another --out")])
    named, partial = (out.with_name(f"{out.name}.{end}") for end in ("adapter", "partial"))
    rewrite_adapter(adapter, named, open_checkpoint(base), family)
    # What another adapter or base has left unfinished is not gone on with.
    stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(base.iterdir())]
    asked = digest_json([stats, [digest_file(path) for path in sorted(named.iterdir())]])
    work = out.with_name(f"{out.name}.{asked[:12]}.work")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    merged = merge_adapter(base, family, named, partial, work)
    copy_companions(base, partial, None)
    partial.rename(out)
    shutil.rmtree(work)
    print(f"{out}: {merged.changed} of {merged.tensors} tensors changed, {merged.dtype}")


if __name__ == "__main__":
    sys.exit(main())
