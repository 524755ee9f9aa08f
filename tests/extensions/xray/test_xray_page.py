"""What is made of a capture: one file without scripts, in which a prompt is text, and a GIF."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from webui.prompt.chunks import chunks
from webui.prompt.tokenizer import Tokenizer

HOSTILE = "<script>alert(1)</script> \"><img src=x onerror=alert(2)> </style><svg onload=alert(3)> 'a' (cat:1.4)"


def kept(xray: SimpleNamespace, folder: Path, prompt: str, **facts: Any) -> Any:
    """A capture with two frames of a prompt."""
    folder.mkdir(parents=True)
    one = xray.capture.Pass(folder)
    tokenizer = Tokenizer()
    said = [xray.words.plain_chunk(chunk, tokenizer) for chunk in chunks(prompt, tokenizer)]
    words = [word.text for word in xray.words.words(said)]
    frames = []
    generator = np.random.default_rng(1)
    for call in (0, 3):
        for kind in (*xray.capture.PICTURES, "difference"):
            pixels = generator.integers(0, 256, (32, 48, 3), dtype=np.uint8)
            one.save_picture(call, kind, pixels, lossless=kind == "difference")
        maps = generator.random((77 * len(said) + 1, 8, 12)).astype(np.float32)
        one.save_maps(call, {0: maps / maps.sum(axis=0)})
        one.save_maps(None, {0: maps / maps.sum(axis=0)})
        frames.append(
            {"call": call, "step": call + 1, "sigma": 9.0 - call, "guided": True, "difference": 0.3, "maps": True}
        )
    span = {"last": 20, "text": prompt, "chunks": said}
    one.facts = {
        "model": HOSTILE, "sampler": HOSTILE, "schedule": HOSTILE, "cfg_scale": 7.0, "seed": 1, "size": [48, 32],
        "picture": 0, "pictures": 2, "sigmas": [9.0, 8.0, 7.0, 6.0, 0.0], "trained": [0.03, 14.6],
        "asked": [[0, 9.0], [3, 6.0]], "frames": frames,
        "prompts": [{"weight": 1.0, "negative": negative, "spans": [span]} for negative in (False, True)],
        "similarity": {"words": words, "values": np.eye(len(words)).tolist()}, **facts,
    }  # fmt: skip
    one.save_facts()
    return one


class Reader(HTMLParser):
    """The elements and addresses of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_one_file_without_scripts_or_anything_from_elsewhere(xray: SimpleNamespace, tmp_path: Path) -> None:
    one = kept(xray, tmp_path / "job" / "pass-1", HOSTILE)
    html = xray.document.document(HOSTILE, [one, one], None)
    reader = Reader()
    reader.feed(html)
    assert not {"script", "iframe", "object", "embed", "link", "base", "form"} & {tag for tag, _ in reader.tags}
    for tag, attributes in reader.tags:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        for name in ("src", "href", "srcset", "action", "data"):
            address = attributes.get(name)
            assert address is None or address.startswith(("data:image/png;base64,", "data:image/jpeg;base64,")), address
    policy = next(attributes for tag, attributes in reader.tags if tag == "meta" and "http-equiv" in attributes)
    assert policy["content"] == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    sheet = html[html.index("<style>") + 7 : html.index("</style>")]
    assert "url(" not in sheet and "@import" not in sheet
    assert html.count("</style>") == 1
    assert not re.search(r"https?://", html)
    assert "&lt;script" in html


@pytest.mark.parametrize("prompt", ["", "a", "word " * 200, HOSTILE])
def test_any_prompt_makes_a_page(xray: SimpleNamespace, tmp_path: Path, prompt: str) -> None:
    one = kept(xray, tmp_path / "job" / "pass-1", prompt)
    html = xray.document.fragment([one], None)
    assert html.count('class="x-look"') <= 3 * xray.document.MOST_WORDS
    assert html.count('class="x-slot"') == 2 * 7
    assert html.count("<div") == html.count("</div>") and html.count("<section") == html.count("</section>")


def test_every_token_and_weight_is_shown(xray: SimpleNamespace, tmp_path: Path) -> None:
    one = kept(xray, tmp_path / "job" / "pass-1", "a (red:1.3) square BREAK blorptastic")
    html = xray.document.fragment([one], None)
    tokenizer = Tokenizer()
    for chunk in chunks("a (red:1.3) square BREAK blorptastic", tokenizer):
        for token, weight in zip(chunk.tokens[1:], chunk.weights[1:], strict=True):
            if token == 49407:
                break
            assert f"token {token}, weight {weight:g}" in html
    assert "chunk 1: 3 of 75" in html and "chunk 2: " in html and "<b>1.3</b>" in html


def test_what_was_not_guided_says_so(xray: SimpleNamespace, tmp_path: Path) -> None:
    one = kept(xray, tmp_path / "job" / "pass-1", "a cat")
    for frame in one.facts["frames"]:
        frame["guided"] = False
    assert "the prompt's answer was taken as it is" in xray.document.fragment([one], None)


def test_the_schedule_has_a_point_for_each_level(xray: SimpleNamespace) -> None:
    drawn = xray.figures.schedule([14.6, 7.0, 2.0, 0.5, 0.0], [14.6, 7.0], [14.6], [0.03, 14.6])
    assert drawn.count("<circle") == 5
    assert [drawn.count(f'class="x-{kind}"') for kind in ("kept", "asked", "planned")] == [1, 1, 3]
    heights = [float(value) for value in re.findall(r'cy="([\d.]+)"', drawn)]
    assert heights == sorted(heights), "noise goes down"


def test_the_gif_has_a_slide_for_each_moment(xray: SimpleNamespace, tmp_path: Path) -> None:
    one = kept(xray, tmp_path / "job" / "pass-1", "a cat")
    stream = BytesIO()
    Image.new("RGB", (48, 32), "red").save(stream, "JPEG")
    data = xray.animation.gif([one], stream.getvalue())
    with Image.open(BytesIO(data)) as picture:
        assert picture.format == "GIF" and picture.n_frames == 3
        assert picture.size == (96, 32 + xray.animation.LINE)
    assert xray.animation.gif([], None) == b""


def test_a_running_job_shows_what_is_there(xray: SimpleNamespace, tmp_path: Path) -> None:
    one = kept(xray, tmp_path / "job" / "pass-1", "a cat", frames=[])
    html = xray.document.fragment([one], None, running=True)
    assert "still on its way" in html and "x-token" in html and "x-slot" not in html
