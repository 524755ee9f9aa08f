"""How many prompts a second are read: comments, network tags, AND, prompt editing and attention, down to weighted text.

    python benchmarks/prompt_parse.py [--count 20000] [--steps 20]

Prints prompts per second for short, usual and long prompts, and the time of one character for texts of growing length,
which stays the same where reading takes linear time.  No model and no tokenizer are involved.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from webui.prompt.comments import without_comments
from webui.prompt.compose import parts
from webui.prompt.extra_networks import extract
from webui.prompt.schedule import Timeline, schedule
from webui.prompt.syntax import Piece, parse_attention

PROMPTS = {
    "short": ["a red cat on a wooden chair", "portrait of a woman, oil painting", "a (red:1.2) cat"],
    "usual": [
        "masterpiece, best quality, (detailed face:1.2), 1girl, [long hair|short hair], in a [forest:city:0.5],"
        " soft light, <lora:ink:0.8>, depth of field, ((rim light)), bokeh",
        "a photo of a cat, sitting on a wooden chair by the window, morning light, 85mm, f/1.8, film grain",
        "castle on a hill at dawn, (volumetric fog:1.3), [birds::0.4], matte painting, detailed AND a dragon :0.4",
    ],
    "long": [", ".join(f"(word{number}:1.{number % 9}), plain text {number}" for number in range(60)) + " [a:b:0.5]"],
}
GROWING = {
    "nested brackets": "([a:b:3])",
    "unclosed brackets": "([",
    "colons": "a:1",
    "alternatives": "[a|b]",
    "plain": "word ",
}


def read(prompt: str, timeline: Timeline) -> list[list[Piece]]:
    """Every text that the prompt says over the steps, as weighted pieces."""
    text = extract(without_comments(prompt)).text
    spans = (span for part in parts(text) for span in schedule(part.text, timeline))
    return [parse_attention(said) for said in dict.fromkeys(span.text for span in spans)]


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--count", type=int, default=20_000)
    options.add_argument("--steps", type=int, default=20)
    chosen = options.parse_args()
    timeline = Timeline(chosen.steps)
    for name, prompts in PROMPTS.items():
        count = chosen.count // (10 if name == "long" else 1)
        start = time.process_time()
        for number in range(count):
            read(prompts[number % len(prompts)], timeline)
        rate = count / (time.process_time() - start)
        characters = sum(map(len, prompts)) / len(prompts)
        print(f"{name:8} {characters:6.0f} characters  {rate:9,.0f} prompts/s of processor time")
    for name, unit in GROWING.items():
        costs = []
        for length in (1_000, 10_000, 100_000):
            text = (unit * (length // len(unit) + 1))[:length]
            start = time.process_time()
            read(text, Timeline(4))
            costs.append(1e6 * (time.process_time() - start) / length)
        print(
            f"{name:18} " + "  ".join(f"{cost:6.3f}" for cost in costs) + "  microseconds a character at 1k, 10k, 100k"
        )


if __name__ == "__main__":
    main()
