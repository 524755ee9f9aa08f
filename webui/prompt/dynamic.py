"""template -> prompt: choices that a seed makes.

    {a|b|c}             one of them                 {2$$a|b|c}          two of them, with a comma between
    {0.5::a|2::b}       b four times as often       {1-2$$ and $$a|b}   one or two, with " and " between
    __colour__          a line of colour.txt        {2$$__colour__}     two lines of it

They nest, also in the lines of wildcard files.  Syntax of AUTOMATIC1111's extension sd-dynamic-prompts
(``docs/SYNTAX.md``; dynamicprompts ``samplers/random.py``).  What is not written like this stays text: an unclosed
brace, a wildcard without a file, a brace behind a backslash.  The same seed, template and files give the same prompt on
every machine: the only randomness is :meth:`random.Random.random`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import groupby

from webui.errors import RequestError
from webui.prompt.comments import without_comments
from webui.prompt.wildcards import Wildcards
from webui.request import GenerationRequest, SecondPass, Template

MAX_DEPTH = 32
"""How deeply wildcards may refer to wildcards."""
MAX_WILDCARDS = 2_000
"""How many wildcards one prompt may come to use."""
MAX_LENGTH = 100_000
"""Longest prompt that is made, in characters."""

_MARK = re.compile(r"\\.|[{}|]|[^\\{}|]+|\\", re.DOTALL)
_WEIGHT = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)::")
_AMOUNT = re.compile(r"\s*(?:(\d{1,6})(?:(-)(\d{1,6})?)?|-(\d{1,6}))\$\$(?:([^$]*)\$\$)?")
_WILDCARD = re.compile(r"__([\w\-/ .*?]{1,200}?)__")
_ALONE = re.compile(r"\s*__([\w\-/ .*?]{1,200}?)__\s*")


def is_dynamic(text: str) -> bool:
    """Whether a text holds anything that could be a choice."""
    return "{" in text or text.count("__") > 1


def resolve(template: str, seed: int, wildcards: Wildcards, *, stream: str = "prompt") -> str:
    """The prompt that ``seed`` makes of a template, without comments; a text without choices stays as it is.

    ``stream`` tells texts apart that are to be chosen independently from one seed.  Raises RequestError for wildcards
    that refer to each other without end.
    """
    if not is_dynamic(template):
        return template
    chooser = _Chooser(random.Random(f"{stream} {seed}"), wildcards)
    return without_comments(chooser.resolve(without_comments(template), ()))


def with_choices(
    request: GenerationRequest, indices: Sequence[int], wildcards: Wildcards
) -> Iterator[tuple[GenerationRequest, list[int]]]:
    """The request as each of the pictures ``indices`` is made, neighbours with equal prompts together, in order.

    Picture i chooses with seed + i, and both prompts apart.  Where anything was chosen the request's ``template`` keeps
    what was written; a request that has one already, or holds no choices, comes back as it is.  Raises RequestError for
    wildcards without end.
    """
    second = request.second_pass or SecondPass()
    written = Template(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        hires_prompt=second.prompt,
        hires_negative_prompt=second.negative_prompt,
    )

    def chosen(index: int) -> GenerationRequest:
        seed = (request.seed or 0) + index
        made = {
            each.name: resolve(getattr(written, each.name), seed, wildcards, stream=each.name.replace("_", " "))
            for each in fields(Template)
        }
        later = replace(second, prompt=made["hires_prompt"], negative_prompt=made["hires_negative_prompt"])
        became = replace(
            request,
            prompt=made["prompt"],
            negative_prompt=made["negative_prompt"],
            second_pass=later if request.second_pass else None,
        )
        return became if became == request else replace(became, template=written)

    if request.template is not None or not any(is_dynamic(text) for text in vars(written).values()):
        yield request, list(indices)
        return
    for became, group in groupby(((chosen(index), index) for index in indices), key=lambda made: made[0]):
        yield became, [index for _, index in group]


@dataclass
class _Brace:
    """An opened brace: its finished options and the pieces of the one being read."""

    options: list[str] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)

    def end_option(self) -> None:
        self.options.append("".join(self.pieces))
        self.pieces = []


@dataclass
class _Chooser:
    rng: random.Random
    wildcards: Wildcards
    used: int = 0

    def resolve(self, text: str, names: tuple[str, ...]) -> str:
        """``text`` with all choices made; ``names`` are the wildcards that it comes from."""
        text = self._without_braces(text)
        if "__" not in text:
            return text
        pieces: list[str] = []
        length = position = 0
        while found := _WILDCARD.search(text, position):
            lines = self.wildcards.lines(found[1])
            start = found.end() if lines else found.end() - 2  # its last two lines may begin another name
            pieces.append(text[position : found.start() if lines else start])
            if lines:
                pieces.append(self._line(found[1], lines, names))
            length += len(pieces[-1])
            if length > MAX_LENGTH:
                raise RequestError(f"The wildcards make a prompt of more than {MAX_LENGTH} characters.")
            position = start
        return "".join((*pieces, text[position:]))

    def _line(self, name: str, lines: Sequence[str], names: tuple[str, ...]) -> str:
        """A line of a wildcard, its own choices made."""
        self.used += 1
        if len(names) >= MAX_DEPTH or self.used > MAX_WILDCARDS:
            raise RequestError(f'The wildcard "{name}" leads to wildcards without end; let no file name itself again.')
        return self.resolve(self._some(lines, 1)[0], (*names, name))

    def _without_braces(self, text: str) -> str:
        """``text`` with every pair of braces replaced by what was chosen; the innermost choose first."""
        if "{" not in text:
            return text
        opened = [_Brace()]
        for mark in _MARK.findall(text):
            brace = opened[-1]
            if mark == "{":
                opened.append(_Brace())
            elif mark == "|" and len(opened) > 1:
                brace.end_option()
            elif mark == "}" and len(opened) > 1:
                opened.pop()
                brace.end_option()
                opened[-1].pieces.append(self._chosen(brace.options))
            else:
                brace.pieces.append(mark)
        whole = opened[0].pieces
        for brace in opened[1:]:  # never closed
            brace.end_option()
            whole.append("{" + "|".join(brace.options))
        return "".join(whole)

    def _chosen(self, options: list[str]) -> str:
        amount = _AMOUNT.match(options[0])
        if amount is None:
            return self._some(options, 1)[0]
        options[0] = options[0][amount.end() :]
        alone = _ALONE.fullmatch(options[0]) if len(options) == 1 else None
        choices = (self.wildcards.lines(alone[1]) if alone else ()) or options
        exact, is_range, upper, only_upper = amount[1], amount[2], amount[3], amount[4]
        lowest = int(exact or 0)
        highest = int(upper or only_upper or (len(choices) if is_range else lowest))
        lowest, highest = sorted((lowest, highest))
        highest = min(highest, len(choices))
        lowest = min(lowest, highest)
        count = lowest + int(self.rng.random() * (highest - lowest + 1))
        return ("," if amount[5] is None else amount[5]).join(self._some(choices, count))

    def _some(self, choices: Sequence[str], count: int) -> list[str]:
        """``count`` different choices in random order, by their weights and without these.

        Efraimidis and Spirakis 2006: the order of random()**(1/weight) is that of drawing without putting back.
        """
        weighed = [(_WEIGHT.match(choice), choice) for choice in choices]
        weights = [float(found[1]) if found else 1.0 for found, _ in weighed]
        texts = [choice[found.end() :] if found else choice for found, choice in weighed]
        if count == 1:
            return [texts[self._one(weights)]]
        keys = [self.rng.random() ** (1 / weight) if weight > 0 else -1.0 for weight in weights]
        order = sorted(range(len(texts)), key=lambda index: -keys[index])
        return [texts[index] for index in order[:count]]

    def _one(self, weights: Sequence[float]) -> int:
        """An index by weight; the last of them where all weigh nothing."""
        left = self.rng.random() * sum(weights)
        for index, weight in enumerate(weights):
            left -= weight
            if left < 0:
                return index
        return len(weights) - 1
