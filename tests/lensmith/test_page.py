"""The frame of every page: nothing hostile gets out of it, nothing is fetched, nothing runs unasked."""

from __future__ import annotations

import base64
import hashlib
import io
from pathlib import Path

import pytest
from jinja2 import UndefinedError
from PIL import Image

from lensmith.page import FRAME, picture, render, template_digests, visible

TEMPLATE = """{% extends "frame.html.j2" %}
{% block title %}{{ title }}{% endblock %}
{% block style %}b { color: red; }{% endblock %}
{% block main %}<h1>{{ count|number }}, {{ part|share }}</h1>{% endblock %}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "page.html.j2").write_text(TEMPLATE)
    return tmp_path


def test_values_are_escaped_and_blocks_filled(folder: Path) -> None:
    page = render(folder, "page.html.j2", {"title": "</title><script>x", "count": 1234, "part": 0.5})
    assert "<title>&lt;/title&gt;&lt;script&gt;x</title>" in page
    assert "<h1>1,234, 50.0%</h1>" in page
    assert "b { color: red; }" in page
    assert "<script" not in page
    assert "script-src" not in page


def test_only_the_given_script_may_run(folder: Path) -> None:
    script = 'const a = 1 < 2 && "b";'
    page = render(folder, "page.html.j2", {"title": "", "count": 0, "part": 0}, script=script)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
    assert f"<script>{script}</script>" in page


def test_what_a_template_names_must_be_given(folder: Path) -> None:
    with pytest.raises(UndefinedError):
        render(folder, "page.html.j2", {"count": 0, "part": 0})


def test_frame_and_room_are_in_the_digests(folder: Path) -> None:
    assert set(template_digests(folder)) == {"page.html.j2", *(path.name for path in FRAME.iterdir())}


def test_pictures_keep_their_shape_and_small_ones_every_pixel() -> None:
    for size, kind, shown in (((40, 20), "png", (40, 20)), ((800, 400), "jpeg", (400, 200))):
        image = Image.new("RGB", size, "red")
        made = picture(image, 400)
        head, _, data = made.address.partition(",")
        assert head == f"data:image/{kind};base64"
        assert (made.width, made.height) == shown
        assert Image.open(io.BytesIO(base64.b64decode(data))).size == shown
        assert image.size == size


def test_control_characters_are_written_out() -> None:
    assert visible("a\u202eb\x00c\nd\te") == "a\\u202eb\\u0000c\nd\te"
