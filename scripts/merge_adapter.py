"""Merge an adapter that another tool has trained, or another version of transformers, into its base.

    python scripts/merge_adapter.py ADAPTER --base DIR --family NAME --out DIR

ADAPTER is a folder with adapter_config.json and adapter_model.safetensors as PEFT, ms-swift, LLaMA-Factory
or Unsloth leave it; names of modules from transformers 4.51 on are known. OUT becomes a checkpoint like the
base: take it as `base.path` of a recipe to examine it, to go on training from it, or to serve it. The adapter
in today's names stays beside it in OUT.adapter. Killed and run again, it goes on. The base is not changed.

What was written is proven before it is called OUT: each merged weight against the definition, by code of its
own, and all else against the base. The last line says so, and `merged_adapters.json` in OUT keeps it. Exit
code 4: it is not what it should be, and there is no OUT. An adapter that the base says it holds already is
refused (2), and one that was trained on a base in 4 or 8 bits, as far as its files say it: what it is added
to then is not in DIR. --base-as-trained says that it is, dequantised; the proof cannot know.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from finetune.merged_adapters import check_not_merged, note_merged  # noqa: E402
from finetune.merging.checkpoint import open_checkpoint  # noqa: E402
from finetune.merging.companions import copy_companions  # noqa: E402
from finetune.merging.outside import rewrite_adapter, tensors_digest  # noqa: E402
from finetune.merging.weights import merge_adapter  # noqa: E402
from finetune.proving.outside import prove_outside  # noqa: E402
from lensmith import families  # noqa: E402
from lensmith.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS  # noqa: E402
from lensmith.base import check_base  # noqa: E402
from lensmith.errors import InputError, IntegrityError, LensmithError, Problem  # noqa: E402
from lensmith.files import digest_file, digest_json  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="merge an outside adapter into its base")
    parser.add_argument("adapter", type=Path, help="the folder with adapter_config.json")
    parser.add_argument("--base", type=Path, required=True, help="the checkpoint it was trained on")
    parser.add_argument("--family", required=True, help="the base's family, as in a recipe")
    parser.add_argument("--out", type=Path, required=True, help="the folder that becomes the checkpoint")
    parser.add_argument(
        "--base-as-trained",
        action="store_true",
        help="the base holds what it was trained on: of a base in 4 or 8 bits, the dequantised values",
    )
    given = parser.parse_args(argv)
    try:
        merge(given.adapter, given.base, given.family, given.out, as_trained=given.base_as_trained)
    except LensmithError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def merge(adapter: Path, base: Path, name: str, out: Path, *, as_trained: bool = False) -> None:
    """Raises InputError where `out` exists, the adapter does not fit the base, see `rewrite_adapter`, or the
    base holds it already; IntegrityError where what was written is not what it should be: there is no `out`.
    """
    family = families.get(name)
    check_base(base, family)
    if out.exists():
        raise InputError(f"{out} exists", [Problem("it would be written over", mend="name another --out")])
    named, partial = (out.with_name(f"{out.name}.{end}") for end in ("adapter", "partial"))
    rewrite_adapter(adapter, named, open_checkpoint(base), family, as_trained=as_trained)
    digest = tensors_digest(named)
    check_not_merged(base, adapter, digest)
    # What another adapter or base has left unfinished is not gone on with.
    stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(base.iterdir())]
    asked = digest_json([stats, [digest_file(path) for path in sorted(named.iterdir())]])
    work = out.with_name(f"{out.name}.{asked[:12]}.work")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    merged = merge_adapter(base, family, named, partial, work)
    copy_companions(base, partial, None)
    proof = prove_outside(base, family, adapter, named, partial)
    if proof.findings:
        shutil.rmtree(partial)
        shutil.rmtree(work)
        raise IntegrityError(
            f"{out} was not made: the merge is not proven", list(map(Problem, proof.findings))
        )
    source = {name: digest_file(adapter / name) for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS)}
    note_merged(
        base, partial, digest, {"source": source, "base_as_trained": as_trained, "proof": proof.facts}
    )
    partial.rename(out)
    shutil.rmtree(work)
    print(f"{out}: {merged.changed} of {merged.tensors} tensors changed, {merged.dtype}")
    weights = proof.facts["weights"]
    print(
        f"proven: {weights['bit_equal']} of {weights['matrices']} merged matrices, computed again by PEFT's "
        "own layers, are equal in every bit; all other weights and files are the base's"
    )
    if not as_trained:
        print("taken to be trained on the base as it is: nothing beside the adapter says otherwise")


if __name__ == "__main__":
    sys.exit(main())
