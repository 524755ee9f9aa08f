"""What people and files wrote arrives on the page as text, never as HTML."""

from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from webui.metadata.verdict import Outcome
from webui.ui import texts

HOSTILE = st.text() | st.just("<script>alert(1)</script>") | st.just("\" onmouseover='x' <img src=x onerror=y>")


class Seen(HTMLParser):
    """Collects tags, attributes and text as a browser would."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.handlers: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


@given(HOSTILE, HOSTILE)
def test_every_fragment_escapes_what_it_is_given(first: str, second: str) -> None:
    fragments = [
        texts.model_note(note=first, examples=[second], folder=first),
        texts.no_model(first),
        texts.problems([first, second]),
        texts.infotext(f"{first}\nNegative prompt: {second}\nSteps: 1, Sampler: {first}"),
        texts.recipe({first: {second: [first, 1]}}),
        texts.notes([first, second]),
        texts.verdict("different", reasons=[first], ssim=0.5, psnr=12.0, largest=3),
    ]
    for fragment in fragments:
        seen = Seen(fragment)
        assert not seen.tags & {"script", "img", "iframe", "svg", "a", "style"}
        assert not seen.handlers


def test_infotext_shows_prompt_negative_prompt_and_settings_apart() -> None:
    html = texts.infotext("a cat\non a mat\nNegative prompt: a dog\nSteps: 20, Sampler: Euler, Seed: 1")
    assert '<p class="info-prompt">a cat\non a mat</p>' in html
    assert "</b> a dog</p>" in html
    assert '<p class="info-settings">Steps: 20, Sampler: Euler, Seed: 1</p>' in html


def test_infotext_with_an_empty_prompt() -> None:
    html = texts.infotext("Negative prompt: a dog\nSteps: 20")
    assert "info-prompt" not in html and "</b> a dog</p>" in html


def test_every_verdict_is_explained() -> None:
    assert set(texts.VERDICT_WORDS) == {outcome.value for outcome in Outcome}
    card = texts.verdict(
        "visually close", reasons=["torch was 2.6, here it is 2.13."], ssim=0.99, psnr=41.25, largest=9
    )
    assert "SSIM 0.9900 · PSNR 41.2 dB · largest difference 9/255" in card
    assert "<li>torch was 2.6, here it is 2.13.</li>" in card
