"""Artifacts made directly, without the stages before them: a run with a random adapter, a held-out set."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText
from transformers.utils import logging

from finetune.new_rows import row_modules
from finetune.new_tokens import read_new_tokens
from finetune.peft_names import named_in_full
from finetune.whole_towers import whole_modules
from lensmith import families
from lensmith.artifact import Artifact
from lensmith.base import checkpoint_path
from lensmith.dataset import HELD_OUT_FILE
from lensmith.families.family import TOWERS, Tower
from lensmith.files import digest_json
from lensmith.home import Home
from lensmith.images import BadImage, ImageLimits, decode_image, encode_png, pixel_digest
from lensmith.row_file import Row, write_rows
from lensmith.sample import Image, Message, Sample, Text
from tests.films import film_rows


@contextlib.contextmanager
def answering_here() -> Iterator[None]:
    """The reference without its process, whose imports take longer than the answers of a tiny model; that
    process is the one of the tests of finetune.generate, of tests/serving and of the command line."""
    from finetune import generate, greedy

    def ask(request: generate.Request) -> int:
        greedy.answer(request)
        return len((request.out / "trace.jsonl").read_text().splitlines())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generate, "_ask", ask)
        yield


def make_lively(base: Path) -> None:
    """Rescale the weights of an untaught checkpoint so that its answers hang on the picture.

    With transformers' starting values the prompt's embeddings are drowned by nothing and move nothing.
    """
    path = base / "model.safetensors"
    tensors = load_file(path)
    for name, tensor in tensors.items():
        if "embed_tokens" in name:
            tensors[name] = tensor * (0.3 / tensor.std())
        if name.endswith("linear_fc2.weight") and "merger" in name:
            tensors[name] = tensor * 3
    save_file(tensors, path, metadata={"format": "pt"})


def make_run(
    home: Home,
    base: Artifact,
    towers: Sequence[Tower] = TOWERS,
    scale: float = 0.5,
    *,
    rank: int = 4,
    alpha: int = 8,
    seed: int = 1,
    rslora: bool = False,
    dora: bool = False,
    rank_pattern: dict[str, int] | None = None,
    alpha_pattern: dict[str, int] | None = None,
    experts: bool = False,
    new_tokens: Sequence[str] = (),
    whole: Sequence[Tower] = (),
) -> Artifact:
    """A run with a random adapter on every linear of `towers`, and on all routed experts where `experts` says
    so, and random rows for `new_tokens`; `scale` is its delta's size. All weights of `whole` are moved a bit.

    A and B are drawn so that `scale` is about the standard deviation of the delta's effect on a unit input.
    """
    family = families.get(base.body["family"])
    checkpoint = checkpoint_path(base)
    asked = [base.id, list(towers), scale, rank, alpha, seed, rslora, dora, rank_pattern, alpha_pattern]
    asked += [experts, list(new_tokens), list(whole)]
    logging.disable_progress_bar()
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype="auto")
    modules = {tower: family.expected_linears(model.config.to_dict(), tower) for tower in towers}
    fused = family.experts.fused(model.config.to_dict()) if experts and family.experts else []
    new = read_new_tokens(checkpoint, new_tokens)
    config = LoraConfig(
        trainable_token_indices={name: list(new.ids.values()) for name in row_modules(model)}
        if new
        else None,
        r=rank,
        lora_alpha=alpha,
        use_rslora=rslora,
        use_dora=dora,
        rank_pattern=rank_pattern or {},
        alpha_pattern=alpha_pattern or {},
        target_modules=[name for names in modules.values() for name in names],
        target_parameters=fused or None,
        modules_to_save=whole_modules(model, family, whole) or None,
    )
    with named_in_full(model):
        adapted = get_peft_model(model, config)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if ".modules_to_save." in name:
                spread = 0.05 * weight.std(correction=0) + 0.01
                weight.add_(spread * torch.randn(weight.shape, generator=draw))
            elif "magnitude" in name:
                weight.mul_(1 + 0.2 * torch.randn(weight.shape, generator=draw))
            elif "trainable_tokens" in name:
                weight.copy_(torch.randn(weight.shape, generator=draw) * weight.std())
            elif "lora_" in name:
                spread = (scale * rank / alpha) ** 0.5 / weight.shape[1] ** 0.5
                weight.copy_(torch.randn(weight.shape, generator=draw) * spread)
    with home.create("run", digest_json(asked), {"base": base}) as draft:
        adapted.save_pretrained(str(draft.path))
        (draft.path / "README.md").unlink(missing_ok=True)
        (draft.path / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n')
        draft.body.update(
            method="lora",
            modules={tower: len(names) for tower, names in modules.items()},
            template=base.body["template"],
            new_tokens=new.ids,
            seed=seed,
            steps=1,
            final_loss=1.0,
        )
    return draft.artifact


def make_full_run(home: Home, base: Artifact, seed: int = 1) -> Artifact:
    """A run of method full: the base with every weight moved a little, as a whole checkpoint."""
    checkpoint = checkpoint_path(base)
    with home.create("run", digest_json([base.id, "full", seed]), {"base": base}) as draft:
        for path in checkpoint.iterdir():
            if path.suffix != ".safetensors":
                (draft.path / path.name).write_bytes(path.read_bytes())
        tensors = load_file(checkpoint / "model.safetensors")
        draw = torch.Generator().manual_seed(seed)
        for name, tensor in tensors.items():
            moved = tensor.float() + 0.05 * tensor.float().std(correction=0) * torch.randn(
                tensor.shape, generator=draw
            )
            tensors[name] = moved.to(tensor.dtype)
        save_file(tensors, draft.path / "model.safetensors", metadata={"format": "pt"})
        draft.body.update(method="full", template=base.body["template"], seed=seed, steps=1, final_loss=1.0)
    return draft.artifact


def make_held_out(home: Home, forms: Path, count: int = 24) -> Artifact:
    """A held-out artifact of the first `count` good rows of a handed-over folder."""
    return _held_out(home, good_rows(forms)[:count])


def make_film_held_out(home: Home, most: int | None = None) -> Artifact:
    """A held-out artifact of rows that show videos, at most so many each."""
    return _held_out(home, film_rows(most))


def _held_out(home: Home, rows: list[Row]) -> Artifact:
    with home.create("held_out", digest_json([row.sample.id for row in rows]), {}) as draft:
        write_rows(draft.path / HELD_OUT_FILE, rows)
        draft.body.update(rows=len(rows), groups=len({row.sample.group for row in rows}))
    return draft.artifact


def text_rows() -> list[Row]:
    """Rows without images."""
    questions = ("What is 7 and 5?", "Name a colour.", "Read nothing.\nSay nothing.", "A", "12 34 56")
    answer = Message("assistant", (Text("1"),))
    return [
        Row(Sample(f"text-{at}", f"text-{at}", (Message("user", (Text(asked),)), answer)), ())
        for at, asked in enumerate(questions)
    ]


def make_text_held_out(home: Home) -> Artifact:
    """A held-out artifact of rows without images."""
    return _held_out(home, text_rows())


def make_mixed_held_out(
    home: Home, forms: Path, pictures: int, size: tuple[int, int] | None = None
) -> Artifact:
    """A held-out artifact of rows without images and the first `pictures` good rows of a folder; their
    pictures drawn out to `size`, width and height, where it is given."""
    rows = good_rows(forms)[:pictures]
    return _held_out(home, [*text_rows(), *([_drawn_out(row, size) for row in rows] if size else rows)])


def _drawn_out(row: Row, size: tuple[int, int]) -> Row:
    """The row with its one picture at another size."""
    image = decode_image(row.images[0], ImageLimits()).resize(size)
    question, answer = row.sample.messages
    (told,) = (part for part in question.parts if isinstance(part, Text))
    picture = Image("drawn_out.png", pixel_digest(image), size)
    messages = (Message("user", (picture, told)), answer)
    sample = replace(row.sample, id=f"{row.sample.id}-drawn-out", messages=messages)
    return Row(sample, (encode_png(image),))


def good_rows(forms: Path) -> list[Row]:
    """The rows of a handed-over folder that parse and whose image decodes, each picture once."""
    rows: dict[str, Row] = {}
    for line in (forms / "labels.jsonl").read_text(encoding="utf-8").splitlines():
        try:
            content = json.loads(line)
            path = content["messages"][0]["content"][0]["path"]
            image = decode_image((forms / path).read_bytes(), ImageLimits())
        except (json.JSONDecodeError, KeyError, FileNotFoundError, BadImage):
            continue
        digest = pixel_digest(image)
        question, answer = (message["content"][-1]["text"] for message in content["messages"])
        if not answer.strip() or "<|" in answer:
            continue
        messages = (
            Message("user", (Image(path, digest, image.size), Text(question))),
            Message("assistant", (Text(answer),)),
        )
        sample = Sample(content["id"], content["group"], messages)
        rows.setdefault(digest, Row(sample, (encode_png(image),)))
    return list(rows.values())
