"""Rows with videos: counted as the real processor does, seen as the class's own way sees them, learned."""

from __future__ import annotations

import dataclasses
import io
import random

import numpy as np
import pytest
import torch
from PIL import Image as Picture
from torch import Tensor

from finetune.adapter import choose_trained
from finetune.collate import COLUMN, Collator, EncoderOutput
from finetune.encoded import IGNORED, PER_TOKEN
from finetune.encoder import row_encoder
from finetune.features import image_features
from finetune.prompts import render_text
from finetune.rows import RowEncoder
from lensmith import families
from lensmith.errors import InputError
from lensmith.families.family import TOWERS
from lensmith.recipe import Recipe
from lensmith.row_file import Row
from lensmith.sample import Text
from lensmith.tokens import read_grid
from lensmith.video_tokens import apart
from tests.conftest import recipe_content
from tests.families.conftest import Checkpoint, Size, row_of, video_row
from tests.families.test_steps import changed, step, values
from tests.family_results import Shows

pytestmark = pytest.mark.slow

FILMED = [name for name, family in families.FAMILIES.items() if family.video]


def encoder_of(checkpoint: Checkpoint) -> RowEncoder:
    return row_encoder(checkpoint.recipe("full", language="train"), checkpoint.root)


def batch_of(encoder: RowEncoder, *rows: Row) -> dict[str, Tensor]:
    numbers = encoder.rendering.family.numbers
    return Collator(encoder.pad_id, numbers)([{COLUMN: encoder.encode(row)} for row in rows])


def own_way(encoder: RowEncoder, row: Row) -> dict[str, Tensor]:
    """What the processor gives of a prompt with a video, as the class itself takes it."""
    form = encoder.rendering.family.video
    assert form is not None
    pictures = [Picture.open(io.BytesIO(each)).convert("RGB") for each in row.images]
    stills, ((video, shown),) = apart(row.sample, pictures)
    frames = np.stack([np.asarray(each) for each in shown])
    # GLM's engine cuts times to whole seconds; of its processors one cuts them as well, and one does not.
    seconds = [int(each) if form.time == "first" else each for each in video.seconds]
    clock = {"fps": 1000.0, "frames_indices": [round(1000 * each) for each in seconds]}
    given = dict(
        encoder.processor(
            text=[render_text(encoder.processor, encoder.rendering, row.sample, answered=False)],
            images=stills or None,
            videos=[frames],
            videos_kwargs={
                "video_metadata": [clock | {"total_num_frames": 1 << 20}],
                "do_sample_frames": False,
                **form.settings,
            },
            add_special_tokens=False,  # pyright: ignore[reportCallIssue]
            return_tensors="pt",  # pyright: ignore[reportCallIssue]
        )
    )
    # Molmo2's processor gives back what it was told of a video.
    given.pop("video_metadata", None)
    return given


@pytest.mark.parametrize("family", FILMED)
def test_tokens_are_those_of_the_processor(made: dict[str, Checkpoint], family: str, shows: Shows) -> None:
    """Over sizes and numbers of frames, small and beyond the budget; times of one digit and of three."""
    shows(family, "", "video")
    encoder = encoder_of(made[family])
    grid = read_grid(made[family].root, made[family].family, None)
    draw = random.Random(5)
    for case in range(30):
        size = draw.randint(10, 300), draw.randint(10, 300)
        stills = [(draw.randint(30, 200), draw.randint(30, 200))] * (case % 3)
        row = video_row(2 * draw.randint(1, 6), size, *stills, rate=draw.choice([0.25, 1.0, 33.3]))
        encoded, (counted,) = encoder.encode(row), encoder.tokens_of([row], grid)
        assert counted.image == int(encoded.tokens["mm_token_type_ids"].sum())
        assert counted.text + counted.image + counted.answer == len(encoded.labels)


# GLM's class and Molmo2's cannot take both in one batch.
SEEN = [*((name, ()) for name in FILMED), ("qwen3_vl", ((80, 100), (60, 90)))]


@pytest.mark.parametrize(("family", "stills"), SEEN)
def test_the_model_sees_what_its_class_would_show_it(
    made: dict[str, Checkpoint], family: str, stills: tuple[Size, ...], shows: Shows
) -> None:
    shows(family, "", "video")
    encoder, model = encoder_of(made[family]), made[family].load().eval()
    row = video_row(6, (120, 90), *stills)
    own = own_way(encoder, row)
    ours = batch_of(encoder, row)
    del ours["labels"]
    for name in ("input_ids", "attention_mask", "mm_token_type_ids"):
        # Without the answer.
        ours[name] = ours[name][:, : own["input_ids"].shape[1]]
    with torch.no_grad():
        # Towers that run apart for images and videos sum in another order.
        torch.testing.assert_close(
            model(**ours).logits, model(**own).logits, rtol=0, atol=1e-5 if stills else 0
        )


@pytest.mark.parametrize("family", FILMED)
def test_times_stand_in_the_prompt(made: dict[str, Checkpoint], family: str) -> None:
    """The middle of two frames to a tenth, or the first one's whole seconds; or each frame's to a tenth."""
    encoder = encoder_of(made[family])
    text = encoder.tokenizer.decode(encoder.encode(video_row(4, (64, 64), rate=1.6)).tokens["input_ids"])
    form = made[family].family.video
    assert form is not None
    middle = "<0.8 seconds>" in text and "<4.0 seconds>" in text
    tenth = ".0 seconds" if family == "glm4v" else ""
    first = f"<|end_of_image|>0{tenth}<" in text and f"<|end_of_image|>3{tenth}<" in text
    each = all(f"{time} <frame_start>" in text for time in ("0.0", " 1.6", " 3.2", " 4.8"))
    alone = form.frames == 1
    assert (middle, first, each) == (form.time == "middle" and not alone, form.time == "first", alone)


@pytest.mark.parametrize("family", FILMED)
def test_videos_images_and_text_in_one_step(made: dict[str, Checkpoint], family: str, shows: Shows) -> None:
    shows(family, "", "video")
    checkpoint = made[family]
    recipe = checkpoint.recipe("lora", **dict.fromkeys(TOWERS, "adapt"))
    encoder = row_encoder(recipe, checkpoint.root)
    rows = [video_row(4, (90, 60), (80, 80), (60, 90)), row_of("12", (112, 80)), row_of("text alone")]
    batch = batch_of(encoder, *rows)
    for labels, row in zip(batch["labels"], rows, strict=True):
        taught = encoder.tokenizer.decode(labels[labels != IGNORED])
        assert taught.startswith(row.sample.answer)
        assert len(taught) < len(row.sample.answer) + 20
    model = choose_trained(checkpoint.load(), recipe).model
    before = values(model)
    assert 0 < step(model, batch) < 100
    assert changed(before, model) == {name for name in before if ".lora_B." in name}


@pytest.mark.parametrize("family", FILMED)
def test_rows_are_taught_together_as_each_alone(
    made: dict[str, Checkpoint], family: str, shows: Shows
) -> None:
    shows(family, "", "video")
    encoder, model = encoder_of(made[family]), made[family].load().eval()
    rows = [video_row(4, (90, 60), (80, 80)), row_of("12", (112, 80)), video_row(2, (60, 60), answer="two")]
    with torch.no_grad():
        losses = [model(**batch_of(encoder, each)).loss for each in rows]
        counts = [int((encoder.encode(each).labels != IGNORED).sum()) for each in rows]
        alone = sum(loss * count for loss, count in zip(losses, counts, strict=True)) / sum(counts)
        together = model(**batch_of(encoder, *rows)).loss
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["qwen3_vl", "glm4v", "molmo2"])
def test_features_of_frozen_towers_are_kept(made: dict[str, Checkpoint], family: str) -> None:
    from finetune.collate import FEATURES, encoder_outputs

    encoder, model = encoder_of(made[family]), made[family].load().eval()
    row = encoder.encode(video_row(4, (90, 60), (80, 80)))
    form, numbers = made[family].family.video, made[family].family.numbers
    assert form is not None
    assert row.pictures == 1 + form.groups(4)
    (kept,) = image_features(model, [row], torch.float32, numbers)
    plain, given = (Collator(encoder.pad_id, numbers)([{COLUMN: each}]) for each in (row, kept))
    outputs = encoder_outputs(given.pop(FEATURES))
    with torch.no_grad():
        torch.testing.assert_close(
            model(**given, mm_encoder_outputs=outputs).loss, model(**plain).loss, rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("family", [name for name in families.FAMILIES if name not in FILMED])
def test_other_families_take_none(made: dict[str, Checkpoint], family: str) -> None:
    content = recipe_content(made[family].root, made[family].root)
    with pytest.raises(ValueError, match="videos are not shown to be learned in"):
        Recipe.model_validate(content | {"family": family, "data": content["data"] | {"video": {}}})
    with pytest.raises(InputError, match="has no videos"):
        encoder_of(made[family]).encode(video_row(2, (60, 60)))


def test_an_image_beside_a_square_video_is_seen_as_each_alone(made: dict[str, Checkpoint]) -> None:
    """The class takes no such row: what its own two ways make of image and video, in their tokens' order."""
    encoder, model = encoder_of(made["molmo2"]), made["molmo2"].load().eval()
    row = video_row(4, (120, 90), (80, 100))
    own, ours = own_way(encoder, row), batch_of(encoder, row)
    del ours["labels"]
    with torch.no_grad():
        image = model.get_image_features(
            own["pixel_values"], own["image_token_pooling"], own["image_grids"]
        ).pooler_output
        video = model.get_video_features(
            own["pixel_values_videos"], own["video_token_pooling"], own["video_grids"]
        ).pooler_output
        seen = {"image": EncoderOutput([*image, *video], [])}
        rest = {name: each for name, each in ours.items() if name in PER_TOKEN}
        wanted = model(**rest, mm_encoder_outputs=seen).logits
        # One run of the tower in place of two.
        torch.testing.assert_close(model(**ours).logits, wanted, rtol=0, atol=1e-5)
        without = {"image": EncoderOutput([*video, *image], [])}
        assert not torch.allclose(model(**rest, mm_encoder_outputs=without).logits, wanted, atol=1e-3)


def test_a_template_that_writes_the_video_first(made: dict[str, Checkpoint]) -> None:
    encoder = encoder_of(made["molmo2"])
    written = str(encoder.processor.chat_template)
    place = "{{- '<|video|>' * seen.videos -}}\n"
    assert place in written
    head, loop = "{%- for number in range(seen.all) -%}", written.replace(place, "")
    encoder.processor.chat_template = loop.replace(head, place + head)
    with pytest.raises(InputError, match="does not write images first"):
        encoder.encode(video_row(2, (60, 60), (80, 80)))


def test_a_template_without_a_place_for_videos(made: dict[str, Checkpoint]) -> None:
    encoder = encoder_of(made["qwen3_vl"])
    row = video_row(2, (60, 60))
    encoder.processor.chat_template = str(encoder.processor.chat_template).replace("<|video_pad|>", "")
    with pytest.raises(InputError, match="0 places for 1 videos"):
        encoder.count(
            [row.sample], [[(60, 60)] * 2], read_grid(made["qwen3_vl"].root, made["qwen3_vl"].family, None)
        )


@pytest.mark.parametrize("family", FILMED)
def test_frames_are_scaled_as_images_are(made: dict[str, Checkpoint], family: str) -> None:
    """The towers were taught on pixels around 0: the same grey is the same number in an image and a frame."""
    encoder = encoder_of(made[family])
    frames, image = (
        batch_of(encoder, row)["pixel_values"] for row in (video_row(4, (84, 84)), row_of("12", (84, 84)))
    )
    assert frames.dtype == image.dtype == torch.float32
    assert abs(float(frames.mean() - image.mean())) < 0.1
    assert float(frames.std() / image.std()) == pytest.approx(1, abs=0.3)
    assert float(frames.abs().max()) < 3


@pytest.mark.parametrize("setting", ["do_rescale", "do_normalize"])
def test_a_processor_that_leaves_pixels_as_they_are(made: dict[str, Checkpoint], setting: str) -> None:
    """As transformers' own for Molmo2 where a checkpoint says nothing of it: counted and encoded, refused."""
    encoder = encoder_of(made["molmo2"])
    setattr(encoder.processor.video_processor, setting, None)  # pyright: ignore[reportAttributeAccessIssue]
    row = video_row(2, (60, 60))
    grid = read_grid(made["molmo2"].root, made["molmo2"].family, None)
    for ask in (lambda: encoder.encode(row), lambda: encoder.count([row.sample], [[(60, 60)] * 2], grid)):
        with pytest.raises(InputError, match="was not taught on") as caught:
            ask()
        (problem,) = caught.value.problems
        assert problem.what == f"{setting} is not true"
        assert "set it to true" in problem.mend
    assert encoder.encode(row_of("12", (60, 60)))


def test_a_processor_whose_times_are_not_known(made: dict[str, Checkpoint]) -> None:
    """As a checkpoint of the same architecture may name: it would write them another way than is counted."""
    encoder = encoder_of(made["glm4v"])
    form = encoder.rendering.family.video
    assert form is not None
    with pytest.raises(InputError, match="is not known") as caught:
        form.fill("<|video|>", [[0.0, 1.0]], "GlmgaProcessor")
    (problem,) = caught.value.problems
    assert "GlmgaProcessor" in problem.what
    assert "Glm46VProcessor or Glm4vProcessor" in problem.mend
    assert {type(encoder_of(made[name]).processor).__name__ for name in ("glm4v", "glm4v_moe")} == {
        *form.written
    }


def test_pictures_that_are_not_a_rows(made: dict[str, Checkpoint]) -> None:
    row = video_row(2, (60, 60))
    with pytest.raises(ValueError, match="1 pictures of a row that shows 2"):
        encoder_of(made["qwen3_vl"]).encode(dataclasses.replace(row, images=row.images[:1]))


@pytest.mark.parametrize("family", ["qwen3_vl", "glm4v", "molmo2"])
def test_answered_as_the_class_answers(made: dict[str, Checkpoint], family: str) -> None:
    """What evaluation during training and the merge proof ask."""
    from finetune.greedy import greedy

    encoder, model = encoder_of(made[family]), made[family].load().eval()
    row = video_row(4, (90, 60))
    own = own_way(encoder, row)
    with torch.no_grad():
        wanted = model.generate(**own, max_new_tokens=5, do_sample=False)  # pyright: ignore[reportCallIssue]
    asked = own["input_ids"].shape[1]
    ends = sorted(encoder.end_ids)
    both = greedy(model, encoder.processor, encoder.rendering, [row, row_of("12", (80, 80))], ends, 5)
    traced = next(each for each in both if each.row == "v")
    assert traced.answer_ids == wanted[0, asked:].tolist()[: len(traced.answer_ids)]
    # What an engine is asked, whose tokens of videos may be others than those of images.
    assert traced.prompt_ids == own["input_ids"][0].tolist()
    form = made[family].family.video
    assert form is not None
    # No feature takes the place of the marks around a frame.
    marks = 2 * 4 if form.cut == "square" else 0
    assert traced.image_tokens == int((own["mm_token_type_ids"] > 0).sum()) - marks


@pytest.mark.parametrize("family", ["qwen3_vl", "glm4v", "molmo2"])
def test_both_answers_of_a_pair_see_it(made: dict[str, Checkpoint], family: str) -> None:
    plain = encoder_of(made[family])
    row = video_row(4, (90, 60))
    worse = dataclasses.replace(row.sample.messages[-1], rejected=(Text("nine or so"),))
    pair = Row(dataclasses.replace(row.sample, messages=(*row.sample.prompt, worse)), row.images)
    encoder = RowEncoder(plain.processor, plain.rendering, plain.end_ids, 4096, pairs=True)
    encoded = encoder.encode(pair)
    assert encoded.rejected is not None
    apart = encoder.encode(Row(pair.sample.with_rejected(), row.images))
    assert torch.equal(encoded.rejected.tokens["input_ids"], apart.tokens["input_ids"])
    form = made[family].family.video
    assert form is not None
    assert encoded.rejected.pictures == encoded.pictures == form.groups(4)
