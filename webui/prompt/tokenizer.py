"""text -> token ids: CLIP's byte-pair encoding (Radford et al. 2021, arXiv:2103.00020, section 2.4).

The ids are those of transformers' ``CLIPTokenizer``.  The package ships only the list of merges; the 49,408 tokens
follow from it by the rule of OpenAI's ``clip/simple_tokenizer.py``: 256 bytes, the same at the end of a word, one token
per merge, two special ones.  Encoding runs in the ``tokenizers`` package, whose import and set-up take 0.2 s.
"""

from __future__ import annotations

import gzip
from importlib import resources

import tokenizers
from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers

BOS = 49406
EOS = 49407
COMMA = 267
"""The token of a comma that ends a word."""

_WORD_END = "</w>"
_SPECIAL = ("<|startoftext|>", "<|endoftext|>")
_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class Tokenizer:
    """CLIP's tokenizer; immutable once built, safe to share between threads."""

    def __init__(self) -> None:
        self._bytes = {letter: value for value, letter in zip(_byte_order(), _byte_letters(), strict=True)}
        merges = _read_merges()
        vocabulary = {token: index for index, token in enumerate(_tokens(merges))}
        bpe = models.BPE(vocabulary, merges, end_of_word_suffix=_WORD_END, unk_token=_SPECIAL[1])
        self._tokenizer = tokenizers.Tokenizer(bpe)
        self._tokenizer.normalizer = normalizers.Sequence(
            [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
        )
        self._tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
        self._tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in _SPECIAL])

    def tokenise(self, text: str) -> list[int]:
        """The ids of ``text`` without begin and end marks.  Half of a surrogate pair counts as a question mark."""
        ids: list[int] = self._tokenizer.encode(text.encode("utf-8", "replace").decode(), add_special_tokens=False).ids
        return ids

    def spelled(self, token: int) -> tuple[str, bool]:
        """What a token stands for, and whether it ends a word; a character in several tokens shows as U+FFFD."""
        text: str = self._tokenizer.id_to_token(token) or ""
        if text in _SPECIAL:
            return text, True
        ends = text.endswith(_WORD_END)
        letters = text.removesuffix(_WORD_END)
        data = bytes(self._bytes[letter] for letter in letters)
        return data.decode("utf-8", "replace"), ends


def _read_merges() -> list[tuple[str, str]]:
    packed = resources.files(__package__).joinpath("clip_bpe", "merges.txt.gz").read_bytes()
    pairs = (line.split(" ") for line in gzip.decompress(packed).decode("utf-8").splitlines())
    return [(left, right) for left, right in pairs]


def _tokens(merges: list[tuple[str, str]]) -> list[str]:
    """Every token, at the place that is its id."""
    letters = _byte_letters()
    joined = [left + right for left, right in merges]
    return [*letters, *(letter + _WORD_END for letter in letters), *joined, *_SPECIAL]


def _byte_order() -> list[int]:
    """The bytes in the order of their tokens: those that are printable characters come first."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return printable + [value for value in range(256) if value not in printable]


def _byte_letters() -> list[str]:
    """A printable letter for each byte, in the order of tokens: itself where it is one, else one from U+0100 on."""
    printable = _byte_order()[:188]
    return [chr(byte) for byte in printable] + [chr(0x100 + index) for index in range(256 - len(printable))]
