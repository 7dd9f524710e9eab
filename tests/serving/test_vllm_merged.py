"""The merged model behind a real vLLM: equal to the reference, closed to the world. One engine start."""

from __future__ import annotations

import base64
import http.server
import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import xgrammar

from data_prep.decoding.work import Drawing
from data_prep.videos.sampling import SAMPLE, sample
from finetune.generate import reference_trace
from finetune.model import load_processor
from finetune.prompts import encode_conversation
from lensmith import families
from lensmith.artifact import Artifact
from lensmith.dataset import read_held_out
from lensmith.errors import InputError
from lensmith.film import MEDIA_TYPE, Film, pack, unpack
from lensmith.images import ImageLimits
from lensmith.rendering import Rendering
from lensmith.row_file import Row
from lensmith.sample import Image, Message, Region, Sample, Text, Thinking, ToolCall
from lensmith.trace import GUIDED_FILE, read_trace
from serving import predict, question
from serving.engine import Engine, running_engine
from serving.parity import prove_serving
from serving.predict import served_trace
from serving.profile import derive_profile
from serving.question import read_reply, request_body
from serving.serve import greeting
from tests.artifacts import answering_here, make_film_held_out, make_text_held_out
from tests.conftest import FORM_SCHEMA
from tests.family_results import Shows
from tests.films import film_rows, frames_dropped, other_frames, times_shifted
from tests.serving.exam import CPU, Exam, home_without
from tests.serving.hostile import BESIDE, HOSTILE
from tests.videos import make_clip

pytestmark = [pytest.mark.vllm, pytest.mark.slow]
Body = dict[str, Any]


@pytest.fixture(scope="module")
def profile(exam: Exam) -> Artifact:
    return derive_profile(exam.recipe, exam.home, exam.model, exam.base, CPU)


@pytest.fixture(scope="module")
def trace(exam: Exam, profile: Artifact, merged_engine: Engine) -> Artifact:
    return served_trace(exam.recipe, exam.home, profile, exam.held_out, engine=merged_engine)


def test_served_equals_the_reference_on_every_row(exam: Exam, trace: Artifact, shows: Shows) -> None:
    shows("qwen3_vl", "", "serve image")
    proof = prove_serving(exam.home, trace, exam.reference, exam.base_trace)
    assert proof.statement["findings"] == []
    assert proof.passed
    assert proof.subject == exam.model.id
    assert proof.statement["rows"] == proof.statement["rows_equal"] == exam.held_out.body["rows"]
    assert proof.statement["rows_live"] > exam.held_out.body["rows"] // 2
    assert proof.statement["largest_logprob_difference"] < 1e-4


def test_guided_answers_equal_the_reference_s_under_the_same_grammar(exam: Exam, trace: Artifact) -> None:
    guided = prove_serving(exam.home, trace, exam.reference, exam.base_trace).statement["guided"]
    assert guided["rows"] == guided["rows_equal"] == exam.held_out.body["rows"]
    assert guided["rows_unlike_free"] == guided["rows"], "an untaught model writes no JSON by itself"
    assert guided["largest_logprob_difference"] < 1e-4
    for row in read_trace(trace, GUIDED_FILE):
        assert row.answer_text.lstrip().startswith("{")


def guidance_off(body: Body) -> Body:
    return {name: value for name, value in body.items() if name != "response_format"}


def another_schema(body: Body) -> Body:
    schema = {"type": "array", "items": {"type": "string"}, "minItems": 1}
    asked = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    return body | ({"response_format": asked} if "response_format" in body else {})


def another_white_space(body: Body) -> Body:
    """As an engine with `disable_any_whitespace` makes its grammar."""
    grammar = str(xgrammar.Grammar.from_json_schema(json.dumps(FORM_SCHEMA), any_whitespace=False))
    asked = {"structured_outputs": {"grammar": grammar}} if "response_format" in body else {}
    return guidance_off(body) | asked


@pytest.mark.parametrize("change", [guidance_off, another_schema, another_white_space])
def test_a_fault_in_what_guides_fails_the_proof(
    exam: Exam,
    profile: Artifact,
    trace: Artifact,
    merged_engine: Engine,
    change: Callable[[Body], Body],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    home = home_without(trace, exam.home, tmp_path)
    monkeypatch.setattr(predict, "request_body", lambda *given: change(request_body(*given)))
    faulty = served_trace(exam.recipe, home, profile, exam.held_out, engine=merged_engine)
    proof = prove_serving(home, faulty, exam.reference, exam.base_trace)
    assert not proof.passed
    assert proof.statement["rows_equal"] == proof.statement["rows"], "free answers are as they were"
    assert proof.statement["guided"]["rows_equal"] < proof.statement["guided"]["rows"]
    assert {each.partition(" differs")[0] for each in proof.statement["findings"]} == {"guided: answer"}


def test_text_alone_is_answered_as_by_the_reference(
    exam: Exam, profile: Artifact, merged_engine: Engine, shows: Shows
) -> None:
    shows("qwen3_vl", "", "serve text")
    held_out = make_text_held_out(exam.home)
    trace = served_trace(exam.recipe, exam.home, profile, held_out, engine=merged_engine)
    reference = reference_trace(exam.recipe, exam.home, exam.base, exam.run, held_out, 64)
    assert prove_serving(exam.home, trace, reference).statement["findings"] == []


def test_rows_come_in_held_out_order_and_the_trace_is_found_again(
    exam: Exam, profile: Artifact, trace: Artifact
) -> None:
    asked = [row.sample.id for row in read_held_out(exam.home, exam.held_out, "test")]
    assert [row.row for row in read_trace(trace)] == asked
    # No engine is given and none is started: the artifact is there.
    assert served_trace(exam.recipe, exam.home, profile, exam.held_out).id == trace.id


def test_answers_hang_on_the_picture(trace: Artifact) -> None:
    answers = {tuple(row.answer_ids) for row in read_trace(trace)}
    assert len(answers) > 1


def test_a_conversation_with_tools_is_asked_as_it_was_taught(exam: Exam, merged_engine: Engine) -> None:
    picture = next(iter(read_held_out(exam.home, exam.held_out, "test"))).images[0]
    zoom = {"type": "function", "function": {"name": "zoom", "parameters": {"type": "object"}}}
    call = ToolCall(
        "zoom", {"bbox_2d": {"$box": [0.1, 0.2, 0.5, 0.75]}, "img_idx": {"$image": 0}, "why": "Ä"}
    )
    messages = (
        Message("system", (Text("Be brief."),)),
        Message("user", (Text("Read "), Region("point", (0.5, 0.25), "it"), Text("?"))),
        Message("assistant", (Thinking("Too small."), Text("I look."), call, call)),
        Message("tool", (Text("the cut:"), Image("a.png"))),
        Message("tool", (Text("nothing "), Text("more"))),
        Message("assistant", (Text("7"),)),
    )
    row = Row(Sample("tools", "g", messages, tools=(zoom,)), (picture,))
    rendering = exam.recipe.rendering
    body = request_body(row, rendering, merged_engine.model_name, 2)
    reply = httpx.post(f"{merged_engine.url}/v1/chat/completions", json=body, timeout=60)
    assert reply.status_code == 200, reply.text
    processor = load_processor(exam.model.path, None)
    taught = encode_conversation(processor, rendering, row.sample, row.images, answered=False)
    image_token = processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    answered = read_reply(row, reply.content, {image_token})
    assert answered.prompt_ids == taught["input_ids"][0].tolist()
    assert answered.image_tokens == 32


def test_a_model_may_call_the_tools_that_a_request_offers(exam: Exam, merged_engine: Engine) -> None:
    """Without the family's parser vLLM does not leave the choice to a model; the untaught one calls none."""
    zoom = {"type": "function", "function": {"name": "zoom", "parameters": {"type": "object"}}}
    picture = next(iter(read_held_out(exam.home, exam.held_out, "test"))).images[0]
    url = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    reply = _ask(merged_engine, url, tools=[zoom], tool_choice="auto")
    assert reply.status_code == 200, reply.text
    message = reply.json()["choices"][0]["message"]
    assert message["content"]
    assert not message.get("tool_calls")


ASKED: list[str] = []


class _Secret(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        ASKED.append(self.path)
        self.send_response(404)
        self.end_headers()


@pytest.fixture
def inner_server() -> Iterator[str]:
    """A server on this machine that nobody outside should reach through the engine."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Secret)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/secret.png"
    server.shutdown()
    thread.join()


def _ask(engine: Engine, url: str, **more: Any) -> httpx.Response:
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "Read the form."}]
    body = {"model": engine.model_name, "messages": [{"role": "user", "content": content}], **more}
    return httpx.post(f"{engine.url}/v1/chat/completions", json=body, timeout=60)


def test_no_media_is_fetched_for_a_request(exam: Exam, merged_engine: Engine, inner_server: str) -> None:
    ASKED.clear()
    assert _ask(merged_engine, inner_server).status_code >= 400
    assert ASKED == []
    picture = exam.home.root / "picture.png"
    picture.write_bytes(next(iter(read_held_out(exam.home, exam.held_out, "test"))).images[0])
    assert _ask(merged_engine, picture.as_uri()).status_code >= 400


@pytest.fixture(scope="module")
def films(exam: Exam) -> Artifact:
    return make_film_held_out(exam.home)


@pytest.fixture(scope="module")
def film_reference(exam: Exam, films: Artifact) -> Artifact:
    with answering_here():
        return reference_trace(exam.recipe, exam.home, exam.base, exam.run, films, 64)


@pytest.fixture(scope="module")
def film_trace(exam: Exam, profile: Artifact, films: Artifact, merged_engine: Engine) -> Artifact:
    return served_trace(exam.recipe, exam.home, profile, films, engine=merged_engine)


def test_videos_are_seen_as_trained(
    exam: Exam, film_trace: Artifact, film_reference: Artifact, shows: Shows
) -> None:
    """Frames and times reach the engine's processor as they were taken, of two videos in a row too."""
    shows("qwen3_vl", "", "serve video")
    proof = prove_serving(exam.home, film_trace, film_reference)
    assert proof.statement["findings"] == []
    assert proof.passed
    assert proof.statement["rows_equal"] == len(film_rows())
    assert proof.statement["largest_logprob_difference"] < 1e-4
    assert len({tuple(row.answer_ids) for row in read_trace(film_trace)}) > 1


@pytest.mark.parametrize("change", [frames_dropped, times_shifted, other_frames])
def test_a_fault_in_what_is_sent_of_a_video_fails_the_proof(
    exam: Exam,
    profile: Artifact,
    films: Artifact,
    film_trace: Artifact,
    film_reference: Artifact,
    merged_engine: Engine,
    change: Callable[[Film], Film],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    home = home_without(film_trace, exam.home, tmp_path)
    monkeypatch.setattr(question, "pack", lambda film: pack(change(film)))
    faulty = served_trace(exam.recipe, home, profile, films, engine=merged_engine)
    proof = prove_serving(home, faulty, film_reference)
    assert not proof.passed
    assert proof.statement["rows_equal"] == 0
    kinds = {each.partition(" differs")[0] for each in proof.statement["findings"]}
    if change is other_frames:
        assert "prompt" not in kinds
        assert kinds & {"answer", "log-probability"}
    else:
        assert "prompt" in kinds


def test_a_client_s_video_is_sampled_as_for_training(
    exam: Exam, merged_engine: Engine, tmp_path: Path
) -> None:
    """Whole, as its file: the engine takes the frames that data preparation takes."""
    clip = make_clip(tmp_path / "clip.mp4", "37")
    film = unpack(sample(Drawing(SAMPLE, clip, 1, exam.recipe.data.video.model_dump()), ImageLimits()))
    taken, whole = (
        _ask_video(merged_engine, f"data:{kind};base64,{base64.b64encode(data).decode()}")
        for kind, data in ((MEDIA_TYPE, pack(film)), ("video/mp4", clip.read_bytes()))
    )
    assert taken.status_code == whole.status_code == 200, whole.text
    both = [each.json() for each in (taken, whole)]
    assert both[0]["prompt_token_ids"] == both[1]["prompt_token_ids"]
    assert both[0]["choices"][0]["logprobs"] == both[1]["choices"][0]["logprobs"]


def test_videos_that_nobody_can_place_in_time_are_refused(merged_engine: Engine, inner_server: str) -> None:
    """A list of pictures, an address, one's own way of reading, bytes that are none, and too many."""
    ASKED.clear()
    picture = base64.b64encode(film_rows()[0].images[0]).decode()
    assert _ask_video(merged_engine, f"data:video/jpeg;base64,{picture},{picture}").status_code == 400
    assert _ask_video(merged_engine, inner_server).status_code >= 400
    assert ASKED == []
    good = request_body(film_rows()[0], Rendering(families.get("qwen3_vl")), merged_engine.model_name, 1)
    url = good["messages"][0]["content"][0]["video_url"]["url"]
    assert _ask_video(merged_engine, url).status_code == 200
    own = {"video": {"fps": 30, "num_frames": -1}}
    assert _ask_video(merged_engine, url, media_io_kwargs=own).status_code == 400
    reply = _ask_video(merged_engine, f"data:video/mp4;base64,{picture}")
    assert reply.status_code == 400
    assert "is not a video in one of the containers" in reply.text
    assert _ask_video(merged_engine, *[url] * 3).status_code == 400


def _ask_video(engine: Engine, *urls: str, **more: Any) -> httpx.Response:
    content = [{"type": "video_url", "video_url": {"url": each}} for each in urls]
    asked = {"messages": [{"role": "user", "content": content}], "logprobs": True, "return_token_ids": True}
    body = {"model": engine.model_name, "max_completion_tokens": 6, **asked, **more}
    return httpx.post(f"{engine.url}/v1/chat/completions", json=body, timeout=60)


def test_two_images_and_a_foreign_template_are_refused(exam: Exam, merged_engine: Engine) -> None:
    image = next(iter(read_held_out(exam.home, exam.held_out, "test"))).images[0]
    url = f"data:image/png;base64,{base64.b64encode(image).decode()}"
    assert _ask(merged_engine, url).status_code == 200
    assert _ask(merged_engine, url, chat_template="{{ 'secret' }}").status_code == 400
    assert _ask(merged_engine, url, mm_processor_kwargs={"min_pixels": 1 << 20}).status_code == 400
    part = {"type": "image_url", "image_url": {"url": url}}
    body = {"model": merged_engine.model_name, "messages": [{"role": "user", "content": [part, part]}]}
    reply = httpx.post(f"{merged_engine.url}/v1/chat/completions", json=body, timeout=60)
    assert reply.status_code == 400
    assert "At most 1 image" in reply.text


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_hostile_leaves_the_engine_as_it_was(
    exam: Exam, merged_engine: Engine, trace: Artifact, name: str
) -> None:
    """It is refused, or answered like any other; whoever asks next gets the answer that was proven."""
    address, text = HOSTILE[name]
    parts: list[Body] = [{"type": "text", "text": text}]
    if address is not None:
        parts.insert(0, {"type": "image_url", "image_url": {"url": address()}})
    body = {"model": merged_engine.model_name, "messages": [{"role": "user", "content": parts}]}
    reply = httpx.post(f"{merged_engine.url}/v1/chat/completions", json=body, timeout=60)
    if name == "a bomb":
        # Pillow's own limit, below which is the profile's: vLLM 0.32 tells it as an error of its own.
        assert "exceeds limit of 178956970 pixels" in reply.text
    elif name in ("truncated", "no picture"):
        assert reply.status_code == 400
    else:
        assert reply.status_code in (200, 400), reply.text
    row = next(iter(read_held_out(exam.home, exam.held_out, "test")))
    well = f"data:image/png;base64,{base64.b64encode(row.images[0]).decode()}"
    choice = _ask(merged_engine, well, return_token_ids=True).json()["choices"][0]
    assert choice["token_ids"] == next(read_trace(trace)).answer_ids


@pytest.mark.parametrize("path", BESIDE)
def test_another_path_than_v1_is_closed(merged_engine: Engine, path: str) -> None:
    """Each with what vLLM would take there."""
    said = {"messages": [{"role": "user", "content": "Read it."}], "max_tokens": 1}
    body = {"model": merged_engine.model_name, "prompt": "Read it.", "tokens": [1], **said}
    body |= {"query": "Read it.", "items": ["a"], "label_token_ids": [1, 2], "new_data_parallel_size": 1}
    assert httpx.post(merged_engine.url + path, json=body, timeout=60).status_code == 403
    alive = httpx.get(f"{merged_engine.url}/health", timeout=60)
    assert alive.status_code == 200


def test_the_printed_example_works_as_printed(exam: Exam, merged_engine: Engine) -> None:
    row = next(iter(read_held_out(exam.home, exam.held_out, "test")))
    (exam.home.root / "form.png").write_bytes(row.images[0])
    lines = greeting(merged_engine).splitlines()
    command = "\n".join(lines[1:3]).removeprefix("try it: ")
    done = subprocess.run(["bash", "-c", command], cwd=exam.home.root, capture_output=True, check=True)
    assert b'"chat.completion"' in done.stdout


def test_the_default_decoding_is_the_one_evaluated(
    exam: Exam, merged_engine: Engine, trace: Artifact
) -> None:
    row = next(iter(read_held_out(exam.home, exam.held_out, "test")))
    url = f"data:image/png;base64,{base64.b64encode(row.images[0]).decode()}"
    choice = _ask(merged_engine, url, return_token_ids=True).json()["choices"][0]
    assert choice["token_ids"] == next(read_trace(trace)).answer_ids


def test_a_port_in_use_is_said_before_anything_starts(
    exam: Exam, profile: Artifact, merged_engine: Engine
) -> None:
    port = int(merged_engine.url.rpartition(":")[2])
    with (
        pytest.raises(InputError, match=f"port {port} of 127.0.0.1 cannot be used"),
        running_engine(profile, exam.home, port),
    ):
        pass
