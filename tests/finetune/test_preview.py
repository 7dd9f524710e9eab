"""The preview shows what the model gets: the very pixels, the prompt, and the tokens that carry loss."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture

from finetune.encoded import IGNORED
from finetune.encoder import row_encoder
from finetune.preview import preview, preview_row, preview_text, seen_images
from finetune.preview_page import write_page
from finetune.rows import RowEncoder
from lensmith.cli.main import main
from lensmith.dataset import read_split
from lensmith.errors import InputError
from lensmith.images import encode_png
from lensmith.row_file import Row
from lensmith.sample import Image, Message, Sample, Text
from tests.conftest import RecipeMaker
from tests.finetune.conftest import Training, TrainingMaker
from tests.published import write_published


@pytest.fixture(scope="module")
def training(new_training: TrainingMaker) -> Training:
    return new_training()


def test_rows(training: Training) -> None:
    shown = preview(training.recipe, training.base, training.dataset, 3)
    rows = list(read_split(training.dataset, "train"))[:3]
    assert [each.row for each in shown] == [row.sample.id for row in rows]
    for each, row in zip(shown, rows, strict=True):
        assert each.answer == row.sample.answer + "<|im_end|>"
        assert f"<|image_pad|>[{each.image_tokens}]" in each.prompt
        assert each.prompt.endswith("<|im_start|>assistant\n")
        # These forms fit the token grid: the model sees them as they are.
        seen = Picture.open(io.BytesIO(each.images[0]))
        original = Picture.open(io.BytesIO(row.images[0]))
        assert seen.size == original.size == each.sizes[0]
        assert np.array_equal(np.asarray(seen), np.asarray(original))


def test_rows_by_id(training: Training) -> None:
    """As an error of training names them."""
    ids = [row.sample.id for row in read_split(training.dataset, "train")]
    shown = preview(training.recipe, training.base, training.dataset, 3, [ids[4], ids[1]])
    assert [each.row for each in shown] == [ids[4], ids[1]]
    with pytest.raises(InputError, match="no such training rows") as error:
        preview(training.recipe, training.base, training.dataset, 3, ["nobody", ids[0], "none"])
    assert [each.where for each in error.value.problems] == ["nobody", "none"]


def noise(width: int, height: int) -> Picture.Image:
    values = np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Picture.fromarray(values, "RGB")


def of_glm(training: Training, tmp_path: Path) -> RowEncoder:
    recipe = training.recipe.model_copy(update={"family": "glm4v"})
    return row_encoder(recipe, write_published("GLM-4.6V-Flash", tmp_path / "glm"))


@pytest.mark.parametrize("family", ["qwen3_vl", "glm4v"])
def test_images_are_rebuilt_exactly(training: Training, tmp_path: Path, family: str) -> None:
    """Two images that fit the grid come back bit by bit; one that does not comes back at its new size."""
    own = row_encoder(training.recipe, training.recipe.base.path)
    encoder = own if family == "qwen3_vl" else of_glm(training, tmp_path)
    factor = encoder.processor.image_processor.patch_size * encoder.processor.image_processor.merge_size
    pictures = [
        noise(factor * 8, factor * 5),
        noise(factor * 3, factor * 7),
        noise(factor * 6 + 9, factor * 4),
    ]
    parts = tuple(Image(f"{place}.png") for place in range(3))
    messages = (Message("user", (*parts, Text("Read."))), Message("assistant", (Text("12"),)))
    row = Row(Sample("a", "g", messages), tuple(encode_png(each) for each in pictures))
    seen = seen_images(encoder.encode(row), encoder.processor)
    for picture, back in zip(pictures[:2], seen[:2], strict=True):
        assert np.array_equal(np.asarray(back), np.asarray(picture))
    assert seen[2].size == (factor * 6, factor * 4)


def test_text_for_a_terminal(training: Training) -> None:
    shown = preview(training.recipe, training.base, training.dataset, 2)
    text = preview_text(shown)
    assert shown[0].row in text
    assert f"▶{shown[0].answer}◀" in text


def test_characters_of_several_tokens_are_whole(training: Training) -> None:
    encoder = row_encoder(training.recipe, training.recipe.base.path)
    question, answer = "Straße, 12 €, 日本語 🙂?", "größer ✓"
    messages = (Message("user", (Text(question),)), Message("assistant", (Text(answer),)))
    shown = preview_row(encoder, Row(Sample("a", "g", messages), ()))
    assert question in shown.prompt
    assert shown.answer == f"{answer}<|im_end|>"
    assert [piece.text for piece in shown.pieces if piece.markup][-1] == "<|im_end|>"
    ids = encoder.encode(Row(Sample("a", "g", messages), ())).labels
    assert (shown.tokens, shown.learned) == (len(ids), int((ids != IGNORED).sum()))


def test_a_rejected_answer_is_shown_beside_the_better_one(
    training: Training,
    make_recipe: RecipeMaker,
    preferences: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In the text, in JSON and on the page; where answers alone are taught nothing of it is there."""
    rejected = '{"account": "000000", "unsure": true}<|im_end|>'
    recipe, page = str(make_recipe(**preferences)), tmp_path / "page.html"
    words = ["preview", recipe, "--rows", "1", "--home", str(tmp_path / "home"), "--page", str(page)]
    assert main(words) == 0
    assert f"rejected: ▷{rejected}◁" in capsys.readouterr().out
    assert main([*words, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["rejected"] == rejected != row["answer"]
    marked = page.read_text().partition("<article")[2].split('<mark class="rejected">')[1:]
    assert next(each.partition("</bdi>")[0].partition("<bdi>")[2] for each in marked) == (
        "{&#34;account&#34;: &#34;000000&#34;, &#34;unsure&#34;: true}"
    )
    write_page(preview(training.recipe, training.base, training.dataset, 1), page, "forms")
    assert "mark class" not in page.read_text()
