"""The release bundle: what is in it, and what does not become one."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lensmith.artifact import Artifact, verify
from lensmith.errors import GateRefused, IntegrityError
from lensmith.home import Home
from serving.bundle import make_release
from serving.pickles import find_pickles
from serving.release_file import Release, read_release
from tests.release_artifacts import LICENCE_TEXT, World, all_wrong, form_rows, label
from tests.serving.test_card import GOLDEN


def parts(world: World, name: str = "one") -> dict[str, Any]:
    """Everything `make_release` is given for a good release."""
    model = world.model(name)
    return {
        "model": model,
        "profile": world.profile(model),
        "report": world.report(model, label, world.base, all_wrong),
        "dataset": world.dataset,
        "held_out": world.held_out,
        "intake": world.intake,
        "merge_proof": world.proof("merge-proof", model),
        "serve_proof": world.proof("serve-proof", model),
    }


def refused(world: World, **changed: Any) -> str:
    with pytest.raises(IntegrityError) as caught:
        make_release(world.recipe, world.home, **parts(world) | changed)
    assert world.home.all("release") == []
    return str(caught.value)


def test_what_is_inside(world: World) -> None:
    release = make_release(world.recipe, world.home, **parts(world))
    names = {entry.path for entry in release.manifest.files}
    assert names == {
        "release.json",
        "README.md",
        "lineage.json",
        "LICENSE",
        "report/report.json",
        "report/page.html",
        "profile/profile.yaml",
    }
    assert (release.path / "LICENSE").read_text() == LICENCE_TEXT
    stated = read_release(release)
    assert json.loads((release.path / "release.json").read_bytes()) == release.body
    assert stated.subject == release.manifest.inputs["model"] == world.model("one").id
    assert release.manifest.inputs["baseline_profile"] == world.profile(world.base).id
    assert [proof.predicate for proof in stated.proofs] == ["merge-proof", "serve-proof"]
    assert (release.path / "report/page.html").read_bytes() == (
        world.home.by_id(stated.exam.report).path / "page.html"
    ).read_bytes()
    verify(release)


def test_lineage_goes_back_to_base_and_rows(world: World) -> None:
    release = make_release(world.recipe, world.home, **parts(world))
    lines = json.loads((release.path / "lineage.json").read_bytes())
    kinds = {line["kind"] for line in lines}
    assert kinds == {"base", "dataset", "held_out", "intake", "run", "model", "profile", "trace", "report"}
    ids = {line["id"] for line in lines}
    assert all(value in ids for line in lines for value in line["inputs"].values())


def test_made_once(world: World) -> None:
    first = make_release(world.recipe, world.home, **parts(world))
    again = make_release(world.recipe, world.home, **parts(world))
    assert (first.id, first.manifest.key) == (again.id, again.manifest.key)
    assert len(world.home.all("release")) == 1


def test_the_same_in_two_homes(world: World, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = World(Home(tmp_path_factory.mktemp("other")))
    releases = [make_release(each.recipe, each.home, **parts(each)) for each in (world, other)]
    assert releases[0].id == releases[1].id


def _shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _shape(inner) for name, inner in value.items()}
    return [_shape(inner) for inner in value] if isinstance(value, list) else type(value).__name__


def test_golden_release_file(world: World) -> None:
    """A change of release.json's form shows here; the golden file of schema 1 must open for ever."""
    text = (GOLDEN / "release_v1.json").read_text()
    golden = Release.model_validate_json(text)
    assert json.dumps(golden.model_dump(mode="json"), indent=2, sort_keys=True) + "\n" == text
    release = make_release(world.recipe, world.home, **parts(world))
    assert _shape(release.body) == _shape(json.loads(text))


LEGAL = {
    "LICENSE": "may be used\n",
    "Notice.txt": "made by\n",
    "LICENCE-2": "too\n",
    "USE_POLICY.md": "kindly\n",
}


def pin_with_legal_files(world: World, folder: Path) -> Path:
    """Make the world's base one with all kinds of legal files, and one that only looks alike."""
    (folder / "docs").mkdir(parents=True)
    (folder / "docs" / "LICENSE").write_text("of something inside\n")
    (folder / "config.json").write_text("{}")
    for name, text in LEGAL.items():
        (folder / name).write_text(text)
    world.pin_base(folder)
    return folder


def adapter_release(world: World) -> Artifact:
    run = world.run("adapter")
    return make_release(
        world.recipe,
        world.home,
        **parts(world)
        | {
            "model": run,
            "profile": world.profile(run),
            "report": world.report(run, label, world.base, all_wrong),
            "merge_proof": None,
            "serve_proof": world.proof("serve-proof", run),
        },
    )


def test_an_adapter_beside_its_base(world: World) -> None:
    release = adapter_release(world)
    stated = read_release(release)
    assert (stated.mode, stated.subject) == ("adapter", stated.run) == ("adapter", world.run("adapter").id)
    assert stated.base == world.base.id


def legal_files(release: Artifact) -> dict[str, str]:
    """The files of a release that are none of its own, by path."""
    own = ("release.json", "README.md", "lineage.json", "report/", "profile/")
    names = [entry.path for entry in release.manifest.files if not entry.path.startswith(own)]
    return {name: (release.path / name).read_text() for name in names}


def test_an_adapter_goes_with_the_bases_legal_files(world: World, tmp_path: Path) -> None:
    pin_with_legal_files(world, tmp_path / "base")
    assert legal_files(adapter_release(world)) == LEGAL


def test_a_merged_model_goes_with_all_its_legal_files(world: World) -> None:
    files = {"config.json": b"{}", **{name: text.encode() for name, text in LEGAL.items()}}
    model = world.artifact("model", "legal", {"base": world.base, "run": world.run("one")}, files)
    release = make_release(
        world.recipe,
        world.home,
        **parts(world)
        | {
            "model": model,
            "profile": world.profile(model),
            "report": world.report(model, label, world.base, all_wrong),
            "merge_proof": world.proof("merge-proof", model),
            "serve_proof": world.proof("serve-proof", model),
        },
    )
    assert legal_files(release) == LEGAL


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text("anything goes\n")])
def test_an_adapter_whose_bases_licence_is_not_what_was_pinned_is_refused(
    world: World, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    damage(pin_with_legal_files(world, tmp_path / "base") / "LICENSE")
    with pytest.raises(IntegrityError, match="gone or was changed"):
        adapter_release(world)
    assert world.home.all("release") == []


def test_a_merged_model_without_merge_proof_is_refused(world: World) -> None:
    assert "the merge proof" in refused(world, merge_proof=None)


@pytest.mark.parametrize("predicate", ["merge-proof", "serve-proof"])
def test_a_failed_proof_makes_no_release(world: World, predicate: Any) -> None:
    failed = world.proof(predicate, world.model("one"), passed=False)
    changed = {predicate.replace("-", "_"): failed}
    with pytest.raises(GateRefused, match="answers differ at token 4"):
        make_release(world.recipe, world.home, **parts(world) | changed)


def test_a_report_about_another_model_is_refused(world: World) -> None:
    other = world.report(world.model("other"), label, world.base, all_wrong)
    assert "the report judges" in refused(world, report=other)


def test_a_report_under_another_profile_is_refused(world: World) -> None:
    """Judged as something else than what ships: the trace's profile is not the release's."""
    model = world.model("one")
    other = world.artifact(
        "profile",
        "another",
        {"subject": model, "base": world.base},
        {"profile.yaml": b"max_new_tokens: 9\n"},
        served_name="bank-forms",
        port=9000,
    )
    message = refused(world, profile=other)
    assert "the report judges what was answered under profile" in message
    assert "the serve proof is about profile" in message


def test_a_profile_of_another_model_is_refused(world: World) -> None:
    assert "the profile serves" in refused(world, profile=world.profile(world.model("other")))


@pytest.mark.parametrize("predicate", ["merge-proof", "serve-proof"])
def test_a_proof_about_another_model_is_refused(world: World, predicate: Any) -> None:
    other = world.proof(predicate, world.model("other"))
    changed = {predicate.replace("-", "_"): other}
    assert f"the {predicate.replace('-', ' ')} is about" in refused(world, **changed)


def test_another_held_out_set_is_refused(world: World) -> None:
    other = world.make_held_out("other", form_rows(50, 2))
    message = refused(world, held_out=other)
    assert "the report is on held-out set" in message
    assert "the dataset's held-out set is" in message


def test_another_dataset_is_refused(world: World) -> None:
    other = world.artifact("dataset", "other", {}, {"data/train.arrow": b"more"}, **world.dataset.body)
    assert "the model was trained on" in refused(world, dataset=other)


def test_an_intake_of_another_dataset_is_refused(world: World) -> None:
    other = world.artifact("dataset", "other", {}, {"data/train.arrow": b"more"}, **world.dataset.body)
    assert "the intake is of" in refused(world, intake=world.make_intake("another", other))


def _torch_zip() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("optimizer.pt", b"anything"),
        ("pytorch_model.bin", b"anything"),
        ("deep/training_args.BIN", b"anything"),
        ("notes.txt", pickle.dumps({"a": 1}, protocol=2)),
        ("weights.safetensors", pickle.dumps({"a": 1}, protocol=4)),
        ("weights.dat", _torch_zip()),
    ],
)
def test_pickles_are_refused(world: World, name: str, data: bytes) -> None:
    inputs = {"base": world.base, "run": world.run("one")}
    model = world.artifact("model", "with pickle", inputs, {"config.json": b"{}", name: data})
    message = refused(
        world,
        model=model,
        profile=world.profile(model),
        report=world.report(model, label, world.base, all_wrong),
        merge_proof=world.proof("merge-proof", model),
        serve_proof=world.proof("serve-proof", model),
    )
    assert name in message


def test_a_brace_where_safetensors_have_one_hides_no_pickle(world: World) -> None:
    data = pickle.dumps("x{" * 8, protocol=2)
    assert data[8:9] == b"{"
    model = world.artifact("model", "braced", {}, {"notes.txt": data})
    assert [problem.what for problem in find_pickles(model.path)] == ["is a pickle under another name"]


def test_safetensors_whose_length_spells_a_pickle_pass(world: World) -> None:
    header = b'{"__metadata__":{}}'.ljust(0x0280)
    data = len(header).to_bytes(8, "little") + header
    assert data.startswith(b"\x80\x02")
    files = {"model.safetensors": data, "merges.txt": b"PK\x03\x04 no zip"}
    model = world.artifact("model", "spelt", {}, files)
    assert find_pickles(model.path) == []
