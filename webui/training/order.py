"""Which items make up the batch of a step: a function of the seed and the step, so a run resumes anywhere.

All shuffles sort raw Philox words, which numpy promises never to change (NEP 19), so that an order outlives versions.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.random import Philox, SeedSequence
from numpy.typing import NDArray

from webui.errors import RequestError
from webui.training.data import Item

Indices = NDArray[np.int32]
MAX_DRAWS = 50_000_000
"""Pictures times repeats in an epoch, whose order is held in memory."""
_EPOCH, _CLASS = range(2)
"""What a stream of random words is for."""


@dataclass(frozen=True)
class _Bucket:
    """Items that fit into one batch: training pictures, each as often as an epoch shows it, and class pictures.

    ``share`` is how many of a batch's items are training pictures, and ``batches`` how many batches of them an epoch
    has.  A batch of one cannot be halved: then the bucket ``alternates``, with as many batches of class pictures.
    """

    own: Indices
    others: Indices
    share: int
    batches: int
    alternates: bool

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return self.batches * (2 if self.alternates else 1)


@dataclass
class _Last:
    """The epoch that was asked for last, and its batches; replaced as one, so that threads may share an order."""

    epoch: tuple[int, Indices] | None = None


@dataclass(frozen=True)
class Order:
    """The batches of a run.

    Per item: its bucket, how often it comes up in an epoch, and whether it is a class picture.  Each batch has exactly
    ``batch_size`` items of one bucket.  In an epoch every training picture comes up as often as it repeats; only the
    last batch of a bucket, when it would be incomplete, is filled up with others of the bucket.  Where a bucket has
    class pictures they are half of each batch (the smaller half of an odd one), taken in turn through all epochs; a
    batch of one is a class picture every second time.  Class pictures whose bucket has no training picture never come
    up.  Raises RequestError when there is no training picture, or an epoch has more than MAX_DRAWS.
    """

    buckets: Sequence[Hashable]
    repeats: Sequence[int]
    is_class: Sequence[bool]
    batch_size: int
    seed: int
    _buckets: tuple[_Bucket, ...] = field(init=False, repr=False, compare=False)
    _last: _Last = field(init=False, repr=False, compare=False, default_factory=_Last)

    def __post_init__(self) -> None:
        if all(self.is_class):
            raise RequestError("There is no training picture beside the class pictures; name a folder that has some.")
        draws = sum(self.repeats)
        if draws > MAX_DRAWS:
            raise RequestError(
                f"An epoch of {draws} pictures is too long; at most {MAX_DRAWS} are counted. Lower the repeats."
            )
        object.__setattr__(self, "_buckets", tuple(self._grouped()))

    @classmethod
    def of(cls, items: Sequence[Item], batch_size: int, seed: int) -> Self:
        """The order of a data set's items, whose buckets are their sizes."""
        return cls(
            tuple((item.width, item.height) for item in items),
            tuple(item.repeats for item in items),
            tuple(item.is_class for item in items),
            batch_size,
            seed,
        )

    @property
    def steps_per_epoch(self) -> int:
        """How many steps show every training picture as often as it repeats."""
        return sum(bucket.steps for bucket in self._buckets)

    def epoch(self, step: int) -> int:
        """The epoch that a step is in, from 0."""
        return step // self.steps_per_epoch

    def batch(self, step: int) -> tuple[int, ...]:
        """The items of a step, counted from 0."""
        epoch, place = divmod(step, self.steps_per_epoch)
        last = self._last.epoch
        if last is None or last[0] != epoch:
            last = self._last.epoch = (epoch, self._shuffled(epoch))
        return tuple(last[1][place].tolist())

    def _grouped(self) -> Iterable[_Bucket]:
        groups: dict[Hashable, tuple[list[int], list[int]]] = {}
        for index, (bucket, is_class) in enumerate(zip(self.buckets, self.is_class, strict=True)):
            groups.setdefault(bucket, ([], []))[is_class].append(index)
        repeats = np.asarray(self.repeats, np.int32)
        for group in groups.values():
            own, others = (np.repeat(np.array(part, np.int32), repeats[part]) for part in group)
            share = (self.batch_size + 1) // 2 if len(others) else self.batch_size
            if len(own):
                yield _Bucket(own, others, share, -(-len(own) // share), self.batch_size == 1 and len(others) > 0)

    def _shuffled(self, epoch: int) -> Indices:
        """The batches of an epoch (steps_per_epoch, batch_size)."""
        parts = [self._batches(bucket, number, epoch) for number, bucket in enumerate(self._buckets)]
        whole = np.concatenate(parts)
        return whole[_permutation(self.seed, len(whole), _EPOCH, epoch)]

    def _batches(self, bucket: _Bucket, number: int, epoch: int) -> Indices:
        own = bucket.own[_permutation(self.seed, len(bucket.own), _EPOCH, epoch, number)]
        own = _filled(own, bucket.share).reshape(bucket.batches, bucket.share)
        if not len(bucket.others):
            return own
        each = self.batch_size - bucket.share or 1
        others = self._in_turn(bucket, number, epoch, bucket.batches * each).reshape(bucket.batches, each)
        return np.concatenate([own, others], axis=0 if bucket.alternates else 1)

    def _in_turn(self, bucket: _Bucket, number: int, epoch: int, count: int) -> Indices:
        """An epoch's class pictures: its piece of an endless row of shuffles of all of them."""
        size = len(bucket.others)
        start = epoch * count
        rounds = range(start // size, (start + count - 1) // size + 1)
        row = [bucket.others[_permutation(self.seed, size, _CLASS, number, turn)] for turn in rounds]
        return np.concatenate(row)[start - rounds[0] * size :][:count]


def _filled(own: Indices, share: int) -> Indices:
    """``own`` up to a multiple of ``share``, by items that its last batch does not have yet, then by all once more."""
    missing = -len(own) % share
    tail = own[len(own) // share * share :]
    _, first = np.unique(own, return_index=True)
    unique = own[np.sort(first)]
    spare = unique[~np.isin(unique, tail)][:missing]
    return np.concatenate([own, spare, np.resize(own, missing - len(spare))])


def _words(seed: int, count: int, *stream: int) -> NDArray[np.uint64]:
    return Philox(SeedSequence(seed, spawn_key=stream)).random_raw(count)


def _permutation(seed: int, count: int, *stream: int) -> NDArray[np.intp]:
    return np.argsort(_words(seed, count, *stream), kind="stable")
