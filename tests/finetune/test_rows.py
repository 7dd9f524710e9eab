"""Answer-only loss: nothing but the answer and its end-of-turn token is taught, and no row is ever cut."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image as Picture

from finetune.collate import COLUMN, NUMBER, Collator, EncodedRows, training_rows
from finetune.encoded import IGNORED, Encoded
from finetune.encoder import check_rows, row_encoder
from finetune.model import load_model
from finetune.rows import RowEncoder, check_answer_only
from lensmith.dataset import read_split
from lensmith.errors import InputError, IntegrityError
from lensmith.recipe import Pixels
from lensmith.row_file import Row, RowFile, write_rows
from lensmith.tokens import read_grid
from tests.finetune.conftest import Training, TrainingMaker
from tests.finetune.row_parts import LOOK, RENDERING, row_of, tool_row, with_template


@pytest.fixture(scope="module")
def training(new_training: TrainingMaker) -> Training:
    return new_training()


@pytest.fixture(scope="module")
def encoder(training: Training) -> RowEncoder:
    return row_encoder(training.recipe, training.recipe.base.path)


@pytest.fixture(scope="module")
def rows(training: Training) -> list[Row]:
    return list(read_split(training.dataset, "train"))


def test_only_answer_and_end_of_turn_carry_loss(
    encoder: RowEncoder, rows: list[Row], training: Training
) -> None:
    """Told apart by the special tokens themselves, not by the code under test."""
    tokenizer = encoder.tokenizer
    image = tokenizer.convert_tokens_to_ids("<|image_pad|>")
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    encoded = [encoder.encode(row) for row in rows]
    assert len({len(each.labels) for each in encoded}) > 1, "rows of one length would not need padding"
    batch = Collator(encoder.pad_id)([{COLUMN: each} for each in encoded])
    assert int((batch["attention_mask"] == 0).sum()) > 0
    for row, ids, labels, mask in zip(
        rows, batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True
    ):
        taught = labels[labels != IGNORED]
        assert tokenizer.decode(taught[:-1]) == row.sample.answer
        assert taught[-1] == end
        assert not bool((labels[ids == image] != IGNORED).any()), "an image token carries loss"
        assert not bool((labels[mask == 0] != IGNORED).any()), "a padding token carries loss"
        prompt = tokenizer.decode(ids[(labels == IGNORED) & (mask == 1)])
        assert prompt.endswith("<|im_start|>assistant\n")


def test_prompt_is_the_one_that_generation_asks(encoder: RowEncoder, rows: list[Row]) -> None:
    for row in rows[:5]:
        encoded = encoder.encode(row)
        asked = encoder.processor.apply_chat_template(
            [
                {
                    **message,
                    "content": [
                        {"type": "image", "image": Picture.open(io.BytesIO(row.images[0]))}
                        if part["type"] == "image"
                        else part
                        for part in message["content"]
                    ],
                }
                for message in RENDERING.messages(row.sample.prompt)
            ],
            tokenize=True,
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
        )
        prompt = asked["input_ids"][0]
        assert torch.equal(encoded.tokens["input_ids"][: len(prompt)], prompt)
        assert bool((encoded.labels[: len(prompt)] == IGNORED).all())
        assert not bool((encoded.labels[len(prompt) :] == IGNORED).any())
        assert torch.equal(encoded.images["pixel_values"], asked["pixel_values"])


def image_tokens_too(encoded: Encoded) -> Encoded:
    labels = torch.where(encoded.tokens["mm_token_type_ids"] > 0, encoded.tokens["input_ids"], encoded.labels)
    return dataclasses.replace(encoded, labels=labels)


def everything(encoded: Encoded) -> Encoded:
    return dataclasses.replace(encoded, labels=encoded.tokens["input_ids"].clone())


def one_prompt_token_too(encoded: Encoded) -> Encoded:
    first = int((encoded.labels != IGNORED).nonzero()[0])
    labels = encoded.labels.clone()
    labels[first - 1] = encoded.tokens["input_ids"][first - 1]
    return dataclasses.replace(encoded, labels=labels)


def not_its_end(encoded: Encoded) -> Encoded:
    labels = encoded.labels.clone()
    labels[-2:] = IGNORED
    return dataclasses.replace(encoded, labels=labels)


def another_token(encoded: Encoded) -> Encoded:
    labels = encoded.labels.clone()
    labels[-3] += 1
    return dataclasses.replace(encoded, labels=labels)


@pytest.mark.parametrize(
    "mutant", [image_tokens_too, everything, one_prompt_token_too, not_its_end, another_token]
)
def test_wrong_labels_are_caught(
    encoder: RowEncoder, rows: list[Row], mutant: Callable[[Encoded], Encoded]
) -> None:
    row = rows[0]
    encoded, rendered = encoder.encode(row), encoder.render(row.sample)
    check_answer_only(encoded, rendered, row.sample.answer, encoder.tokenizer)
    with pytest.raises(IntegrityError, match="other than its answer"):
        check_answer_only(mutant(encoded), rendered, row.sample.answer, encoder.tokenizer)


def test_an_answer_that_the_template_changed_is_caught(encoder: RowEncoder, rows: list[Row]) -> None:
    encoded, rendered = encoder.encode(rows[0]), encoder.render(rows[0].sample)
    with pytest.raises(IntegrityError, match="other than its answer"):
        check_answer_only(encoded, rendered, "another answer", encoder.tokenizer)
    with pytest.raises(IntegrityError, match="other than its answer"):
        check_answer_only(encoded, rendered, rows[0].sample.answer[-1], encoder.tokenizer)


@pytest.mark.parametrize("pixels", [None, Pixels(min_pixels=4096, max_pixels=40_000)])
def test_counted_tokens_are_the_encoded_ones(training: Training, pixels: Pixels | None) -> None:
    recipe = training.recipe.model_copy(update={"pixels": pixels})
    encoder = row_encoder(recipe, recipe.base.path)
    grid = read_grid(recipe.base.path, recipe.model_family, None)
    if pixels is not None:
        grid = dataclasses.replace(
            grid, budget=dataclasses.replace(grid.budget, min_pixels=4096, max_pixels=40_000)
        )
    for sizes in [(256, 128)], [(33, 200)], [(640, 480)], [(20, 20), (300, 100)]:
        row = row_of('{"a":"12"}', *sizes)
        (counted,), encoded = encoder.tokens_of([row], grid), encoder.encode(row)
        assert counted.total == len(encoded.labels)
        assert counted.image == int((encoded.tokens["mm_token_type_ids"] > 0).sum())
        assert counted.answer == int((encoded.labels != IGNORED).sum())


def test_many_rows_are_counted_as_each_is_encoded(encoder: RowEncoder, training: Training) -> None:
    """Together, whatever they hold: several images, tools and thoughts, none but text."""
    grid = read_grid(training.recipe.base.path, training.recipe.model_family, None)
    some = [
        row_of('{"a":"12"}', (256, 128)),
        row_of("7", (33, 200), (20, 20)),
        tool_row(LOOK),
        row_of("text alone"),
        row_of("8", (640, 480)),
    ]
    for row, counted in zip(some, encoder.tokens_of(some, grid), strict=True):
        encoded = encoder.encode(row)
        learned = int((encoded.labels != IGNORED).sum())
        image = int((encoded.tokens["mm_token_type_ids"] > 0).sum())
        assert (counted.text, counted.image, counted.answer) == (
            len(encoded.labels) - learned - image,
            image,
            learned,
        )


def test_a_row_that_is_too_long_is_named_never_cut(training: Training, rows: list[Row]) -> None:
    recipe = training.recipe.model_copy(
        update={"train": training.recipe.train.model_copy(update={"max_length": 78})}
    )
    source = recipe.base.path
    encoder = row_encoder(recipe, source)
    whole = row_encoder(training.recipe, source)
    longer = {row.sample.id for row in rows if len(whole.encode(row).labels) > 78}
    assert longer
    assert len(longer) < len(rows)
    with pytest.raises(InputError, match=r"longer than train\.max_length 78") as error:
        list(check_rows(recipe, training.dataset, source, encoder))
    assert f"{len(longer)} rows" in str(error.value)
    assert next(iter(sorted(longer))) in str(error.value) or len(longer) > 10
    for row in rows:
        if row.sample.id in longer:
            with pytest.raises(InputError, match="longer"):
                encoder.encode(row)
        else:
            assert len(encoder.encode(row).labels) == len(whole.encode(row).labels)


def test_processes_share_the_look_at_all_rows(
    training: Training, encoder: RowEncoder, rows: list[Row]
) -> None:
    source = training.recipe.base.path
    shares = [
        [each.row for each in check_rows(training.recipe, training.dataset, source, encoder, first, 3)]
        for first in range(3)
    ]
    assert sorted(name for share in shares for name in share) == sorted(row.sample.id for row in rows)


def test_a_template_that_does_not_continue_the_prompt_is_refused(tiny_base: Path) -> None:
    processor = with_template(
        tiny_base, lambda text: text.replace("'<|im_start|>assistant\\n'", "'<|im_start|>assistant: '")
    )
    encoder = RowEncoder(processor, RENDERING, [processor.tokenizer.eos_token_id], 512)
    with pytest.raises(InputError, match="row a cannot be taught"):
        encoder.encode(row_of('{"a":"12"}', (256, 128)))


def test_a_template_without_end_of_turn_gets_the_tokenizers(tiny_base: Path) -> None:
    """GLM's template ends an answer with nothing: the next turn's tag is what ends it."""
    processor = with_template(
        tiny_base,
        lambda text: text.replace(
            "{{- '<|im_end|>' -}}\n    {%- endgeneration -%}", "{%- endgeneration -%}"
        ).replace("{{- '\\n' -}}\n{%- endfor -%}", "{%- endfor -%}"),
    )
    encoder = RowEncoder(processor, RENDERING, [processor.tokenizer.eos_token_id], 512)
    encoded = encoder.encode(row_of('{"a":"12"}', (256, 128)))
    taught = encoded.labels[encoded.labels != IGNORED]
    assert encoder.tokenizer.decode(taught) == '{"a":"12"}<|im_end|>'


def test_padding_does_not_change_what_is_learned(training: Training, encoder: RowEncoder) -> None:
    """A padded batch's loss is the mean over its answer tokens of the rows' own losses."""
    model = load_model(training.recipe.base.path, torch.float32).eval()
    collate = Collator(encoder.pad_id)
    encoded = [
        encoder.encode(row_of(answer, size))
        for answer, size in [("1", (64, 64)), ('{"a":"12","b":"3"}', (256, 128)), ("12345678", (96, 64))]
    ]
    sums, tokens = 0.0, 0
    with torch.no_grad():
        for each in encoded:
            count = int((each.labels != IGNORED).sum())
            sums += float(model(**collate([{COLUMN: each}])).loss) * count
            tokens += count
        together = float(model(**collate([{COLUMN: each} for each in encoded])).loss)
    assert together == pytest.approx(sums / tokens, abs=1e-5)


def test_rows_are_encoded_once_while_memory_allows(encoder: RowEncoder, tmp_path: Path) -> None:
    class Counting(RowEncoder):
        calls = 0

        def encode(self, row: Row) -> Encoded:
            self.calls += 1
            return super().encode(row)

    stored = row_of("12", (64, 64))
    size = encoder.encode(stored).nbytes
    path = tmp_path / "train.arrow"
    write_rows(path, [stored, stored])
    batch = {NUMBER: [0, 1]}
    for room, calls in ((10 * size, 2), (size, 3), (0, 4)):
        counting = Counting(encoder.processor, RENDERING, encoder.end_ids, encoder.max_length)
        transform = EncodedRows(RowFile(path), counting, room)
        first, second = transform(batch), transform(batch)
        assert counting.calls == calls
        assert torch.equal(first[COLUMN][1].labels, second[COLUMN][1].labels)


def test_training_rows_are_those_of_the_dataset(
    training: Training, encoder: RowEncoder, rows: list[Row]
) -> None:
    dataset = training_rows(EncodedRows(read_split(training.dataset, "train"), encoder))
    assert len(dataset) == len(rows)
    for place in (0, len(rows) - 1):
        encoded = dataset[place][COLUMN]
        assert encoded.row == rows[place].sample.id
        assert torch.equal(encoded.images["pixel_values"], encoder.encode(rows[place]).images["pixel_values"])
