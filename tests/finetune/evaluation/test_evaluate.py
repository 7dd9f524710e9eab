"""Evaluate: what counts as an exam, what is refused, what report and page hold."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from finetune.evaluation.evaluate import evaluate
from finetune.evaluation.mistakes import MOST_MISTAKES
from finetune.evaluation.predictions import PREDICTIONS_FILE
from lensmith.artifact import Artifact, verify
from lensmith.dataset import READS_LOG
from lensmith.errors import IntegrityError
from lensmith.home import Home
from lensmith.recipe import Recipe
from lensmith.report import read_report
from tests.release_artifacts import World, form_rows, label, plain_recipe, wrong_every


@pytest.fixture
def world(home: Home) -> World:
    return World(home)


def test_report_by_hand(world: World) -> None:
    """48 forms of two fields, every 4th account wrong: F1 84/96; the base has every account wrong: 48/96."""
    artifact = world.report(world.model("one"), wrong_every(4), world.base, wrong_every(1))
    report = read_report(artifact)
    assert (report.rows, report.groups) == (48, 24)
    assert report.scores["field_f1"].value == pytest.approx(84 / 96)
    assert report.scores["exact_match"].value == pytest.approx(36 / 48)
    assert report.fields["account"].f1 == pytest.approx(36 / 48)
    assert report.fields["amount"].f1 == 1.0
    assert report.comparison is not None
    assert report.comparison.subject == world.base.id
    gain = report.comparison.differences["field_f1"]
    assert gain.value == pytest.approx(36 / 96)
    assert gain.interval is not None
    assert 0.3 < gain.interval.lower < gain.value < gain.interval.upper < 0.45
    assert json.loads((artifact.path / "report.json").read_bytes()) == artifact.body
    verify(artifact)


def test_the_same_question_is_answered_once(world: World) -> None:
    first = world.report(world.model("one"), wrong_every(4), world.base, wrong_every(1))
    again = world.report(world.model("one"), wrong_every(4), world.base, wrong_every(1))
    assert first.id == again.id
    reads = (world.home.root / READS_LOG).read_text().splitlines()
    assert len(reads) == 1
    assert "evaluate" in json.loads(reads[0])["reason"]


def test_two_homes_give_the_same_bytes(world: World, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = World(Home(tmp_path_factory.mktemp("other")))
    ids = {
        each.report(each.model("one"), wrong_every(4), each.base, wrong_every(1)).id
        for each in (world, other)
    }
    assert len(ids) == 1


def test_predictions_keep_everything(world: World) -> None:
    artifact = world.report(world.model("one"), wrong_every(4), world.base, wrong_every(1))
    lines = [json.loads(line) for line in (artifact.path / PREDICTIONS_FILE).read_text().splitlines()]
    assert [line["row"] for line in lines] == [row.sample.id for row in world.rows]
    first = lines[0]
    assert first["label"] == label(0)
    assert first["answer"] == wrong_every(4)(0)
    assert first["fields"] == {"account": "wrong", "amount": "right"}
    assert first["baseline"]["fields"]["account"] == "wrong"
    assert all((artifact.path / image).is_file() for line in lines for image in line["images"])


def test_without_a_baseline(world: World) -> None:
    artifact = evaluate(
        world.recipe, world.home, world.trace(world.base, wrong_every(1)), world.held_out, None
    )
    assert read_report(artifact).comparison is None
    assert "base" in (artifact.path / "page.html").read_text()


def _text_recipe() -> Recipe:
    recipe = plain_recipe()
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"answer": "text"})})


def test_text_answers_have_no_field_metrics(home: Home) -> None:
    world = World(home, recipe=_text_recipe())
    artifact = world.report(world.model("one"), wrong_every(4), world.base, wrong_every(1))
    assert set(read_report(artifact).scores) == {"exact_match", "character_error_rate"}
    assert read_report(artifact).fields == {}
    assert "Field F1" not in (artifact.path / "page.html").read_text()


def _refused(world: World, trace: Artifact, baseline: Artifact | None = None) -> str:
    with pytest.raises(IntegrityError) as caught:
        evaluate(world.recipe, world.home, trace, world.held_out, baseline)
    assert world.home.all("report") == []
    assert not list((world.home.root / "artifacts" / "report").glob("*"))
    return str(caught.value)


def test_a_trace_on_another_held_out_set_is_refused(world: World) -> None:
    """Even one with the very same rows answered: the id decides. Nothing is read of the exam."""
    other = world.make_held_out("other", form_rows(50, 2))
    trace = world.trace(world.model("one"), label, held_out=other)
    assert other.id[:12] in _refused(world, trace)
    assert not (world.home.root / READS_LOG).exists()


def test_a_baseline_on_another_held_out_set_is_refused(world: World) -> None:
    other = world.make_held_out("other", form_rows(50, 2))
    good = world.trace(world.model("one"), label)
    _refused(world, good, world.trace(world.base, label, held_out=other))


def test_missing_rows_are_refused(world: World) -> None:
    message = _refused(world, world.trace(world.model("one"), label, rows=world.rows[:-2]))
    assert "form-046: has no answer" in message
    assert "form-047: has no answer" in message


def test_a_row_answered_twice_is_refused(world: World) -> None:
    trace = world.trace(world.model("one"), lambda _: label(0), rows=[*world.rows, world.rows[3]])
    assert "form-003: is answered twice" in _refused(world, trace)


def test_an_unknown_row_is_refused(world: World) -> None:
    trace = world.trace(world.model("one"), label, rows=form_rows(49, 2))
    assert "form-048: is not a row" in _refused(world, trace)


def test_other_pixels_are_refused(world: World) -> None:
    first, second = world.rows[:2]
    shown = replace(first, sample=replace(first.sample, messages=second.sample.messages))
    swapped = [shown, *world.rows[1:]]
    assert "form-000: was asked with other pixels" in _refused(
        world, world.trace(world.model("one"), label, rows=swapped)
    )


def test_another_group_is_refused(world: World) -> None:
    """Groups carry the interval: a trace that splits one up would narrow it."""
    message = _refused(world, world.trace(world.model("one"), label, rows=form_rows(48, 1)))
    assert "has group" in message
    assert "more rows" in message


class _Page(HTMLParser):
    """What a browser would make of the page: its tags, and every attribute that could run something."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts = 0
        self.active: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        self.active += [name for name, _ in attrs if name.startswith("on") or name in ("href", "srcdoc")]
        self.sources += [value or "" for name, value in attrs if name == "src"]


HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</td></table><iframe srcdoc='<script>1</script>'>",
)


@pytest.mark.parametrize("json_answer", [True, False])
@pytest.mark.parametrize("said", HOSTILE)
def test_hostile_answers_stay_text(home: Home, said: str, json_answer: bool) -> None:
    world = World(home, rows=8)
    answer = json.dumps({"account": said, said: "1"}) if json_answer else said
    artifact = world.report(world.model("one"), lambda _: answer, world.base, lambda _: answer)
    text = (artifact.path / "page.html").read_text()
    page = _Page()
    page.feed(text)
    assert page.scripts == 1
    assert page.active == []
    assert all(source.startswith("data:image/") for source in page.sources)


def test_an_answer_is_no_template(home: Home) -> None:
    world = World(home, rows=4)
    artifact = world.report(world.model("one"), lambda _: "{{ 7 * 191 }}", world.base, label)
    text = (artifact.path / "page.html").read_text()
    assert "{{ 7 * 191 }}" in text
    assert "1337" not in text


def test_invisible_characters_are_shown(home: Home) -> None:
    world = World(home, rows=8)
    artifact = world.report(
        world.model("one"), lambda _: '{"account": "\u202e12\u200b"}', world.base, wrong_every(1)
    )
    text = (artifact.path / "page.html").read_text()
    assert "\\u202e12\\u200b" in text
    assert "\u202e" not in text


def test_the_page_allows_no_other_script(world: World) -> None:
    artifact = world.report(world.model("one"), wrong_every(4), world.base, wrong_every(1))
    text = (artifact.path / "page.html").read_text()
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-" in text
    assert "http://" not in text
    assert "https://" not in text


def test_the_page_says_how_many_it_shows(home: Home) -> None:
    world = World(home, rows=MOST_MISTAKES + 20)
    artifact = world.report(world.model("one"), wrong_every(1), world.base, label)
    text = (artifact.path / "page.html").read_text()
    assert f"{MOST_MISTAKES} of {MOST_MISTAKES + 20} rows with a mistake" in text
    assert text.count('<article class="row"') == MOST_MISTAKES


def test_a_long_answer_is_cut_on_the_page_only(home: Home) -> None:
    world = World(home, rows=4)
    artifact = world.report(world.model("one"), lambda _: "z" * 9000, world.base, wrong_every(1))
    assert "7,000 more characters" in (artifact.path / "page.html").read_text()
    line = json.loads((artifact.path / PREDICTIONS_FILE).read_text().splitlines()[0])
    assert line["answer"] == "z" * 9000


def test_a_single_group_is_said_to_be_undecidable(home: Home) -> None:
    world = World(home, rows=6, per_group=6)
    artifact = world.report(world.model("one"), label, world.base, wrong_every(1))
    report = read_report(artifact)
    assert report.comparison is not None
    assert report.comparison.differences["field_f1"].interval is None
    assert "undecidable" in (artifact.path / "page.html").read_text()
