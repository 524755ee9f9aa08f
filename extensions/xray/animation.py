"""a capture -> a GIF: the noisy picture and the clean one seen in it, step by step.  No torch."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

from PIL import Image, ImageDraw, ImageFont

from .capture import Pass

STEP_MS, LAST_MS = 500, 2500
LINE = 26
INK, PAPER = (237, 237, 240), (19, 19, 22)


def gif(passes: Sequence[Pass], final: bytes | None) -> bytes:
    """The GIF, which runs for ever; empty when there is no frame.  ``final`` ends it, where it is there."""
    slides = []
    for one in passes:
        for frame in one.frames:
            noisy, clean = one.picture(frame["call"], "noisy"), one.picture(frame["call"], "clean")
            if noisy and clean:
                words = f"step {int(frame['step'])} of {len(one.facts['sigmas']) - 1}"
                slides.append((noisy, clean, words))
    if slides and final:
        slides.append((final, final, "the picture"))
    if not slides:
        return b""
    width, height = Image.open(BytesIO(slides[-1][1])).size
    drawn = [_slide(noisy, clean, words, (width, height)) for noisy, clean, words in slides]
    times = [STEP_MS] * (len(drawn) - 1) + [LAST_MS]
    stream = BytesIO()
    drawn[0].save(stream, "GIF", save_all=True, append_images=drawn[1:], duration=times, loop=0, optimize=False)
    return stream.getvalue()


def _slide(noisy: bytes, clean: bytes, words: str, size: tuple[int, int]) -> Image.Image:
    """Both pictures beside each other, in as many colours as a GIF has."""
    width, height = size
    slide = Image.new("RGB", (2 * width, height + LINE), PAPER)
    for place, data in enumerate((noisy, clean)):
        picture = Image.open(BytesIO(data)).convert("RGB")
        slide.paste(picture if picture.size == size else picture.resize(size), (place * width, 0))
    ImageDraw.Draw(slide).text((8, height + 5), words, fill=INK, font=ImageFont.load_default(size=14))
    return slide.quantize(256, Image.Quantize.MEDIANCUT)
