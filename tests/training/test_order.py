from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.errors import RequestError
from webui.training import order as order_module
from webui.training.order import Order

ITEM = st.tuples(st.integers(0, 3), st.integers(1, 4), st.booleans())
MIXES = st.lists(ITEM, min_size=1, max_size=24).filter(lambda mix: not all(item[2] for item in mix))


def order_of(mix: list[tuple[int, int, bool]], batch_size: int, seed: int) -> Order:
    buckets, repeats, is_class = zip(*mix, strict=True)
    return Order(buckets, repeats, is_class, batch_size, seed)


def epoch_batches(order: Order, epoch: int) -> list[tuple[int, ...]]:
    steps = order.steps_per_epoch
    return [order.batch(step) for step in range(epoch * steps, (epoch + 1) * steps)]


@given(MIXES, st.integers(1, 9), st.integers(0, 2**63 - 1), st.integers(0, 3))
def test_every_batch_is_full_and_of_one_bucket_and_shows_each_picture_as_often_as_it_repeats(
    mix: list[tuple[int, int, bool]], batch_size: int, seed: int, epoch: int
) -> None:
    order = order_of(mix, batch_size, seed)
    batches = epoch_batches(order, epoch)
    assert all(len(batch) == batch_size for batch in batches)
    assert all(len({mix[item][0] for item in batch}) == 1 for batch in batches)
    shown = Counter(item for batch in batches for item in batch if not mix[item][2])
    for bucket in {item[0] for item in mix}:
        own = [index for index, item in enumerate(mix) if item[0] == bucket and not item[2]]
        assert all(shown[index] >= mix[index][1] for index in own)
        assert sum(shown[index] - mix[index][1] for index in own) < batch_size  # one batch is filled up, no more


@given(MIXES, st.integers(1, 9), st.integers(0, 2**32), st.lists(st.integers(0, 200), min_size=1, max_size=12))
def test_a_batch_depends_on_seed_and_step_alone(
    mix: list[tuple[int, int, bool]], batch_size: int, seed: int, steps: list[int]
) -> None:
    ran_through = order_of(mix, batch_size, seed)
    wanted = {step: ran_through.batch(step) for step in sorted(steps)}
    jumping = order_of(mix, batch_size, seed)
    assert all(jumping.batch(step) == wanted[step] == order_of(mix, batch_size, seed).batch(step) for step in steps)


@given(st.integers(1, 8), st.integers(1, 5), st.integers(2, 12), st.integers(0, 99))
def test_class_pictures_are_half_of_each_batch_and_come_up_equally_often_over_epochs(
    own: int, others: int, batch_size: int, seed: int
) -> None:
    order = order_of([(0, 1, False)] * own + [(0, 1, True)] * others, batch_size, seed)
    batches = [batch for epoch in range(3) for batch in epoch_batches(order, epoch)]
    assert all(sum(item >= own for item in batch) == batch_size // 2 for batch in batches)
    shown = Counter(dict.fromkeys(range(own, own + others), 0))
    shown.update(item for batch in batches for item in batch if item >= own)
    assert max(shown.values()) - min(shown.values()) <= 1


def test_batches_of_one_alternate_between_training_and_class_pictures() -> None:
    order = order_of([(0, 1, False)] * 5 + [(0, 1, True)] * 3, 1, 4)
    batches = epoch_batches(order, 0)
    assert len(batches) == 10
    assert sorted(item for (item,) in batches if item < 5) == [0, 1, 2, 3, 4]


def test_a_last_batch_is_filled_with_pictures_it_does_not_have() -> None:
    order = order_of([(0, 1, False)] * 10, 8, 1)
    assert order.steps_per_epoch == 2
    for epoch in range(8):
        assert all(len(set(batch)) == 8 for batch in epoch_batches(order, epoch))


def test_epochs_and_seeds_are_shuffled_differently_and_counted() -> None:
    order = order_of([(0, 1, False)] * 64, 4, 1)
    assert order.steps_per_epoch == 16
    assert [order.epoch(step) for step in (0, 15, 16, 47)] == [0, 0, 1, 2]
    assert epoch_batches(order, 0) != epoch_batches(order, 1)
    assert epoch_batches(order, 0) != epoch_batches(order_of([(0, 1, False)] * 64, 4, 2), 0)


def test_the_order_is_the_same_for_ever() -> None:
    """The Philox words of SeedSequence(7, spawn_key=(0, 0)) and (0, 0, 0), sorted: no numpy release may move them."""
    order = order_of([(0, 1, False)] * 6, 2, 7)
    assert epoch_batches(order, 0) == [(4, 5), (1, 3), (2, 0)]


def test_what_has_no_order_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RequestError, match="no training picture"):
        order_of([(0, 1, True)], 2, 0)
    monkeypatch.setattr(order_module, "MAX_DRAWS", 100)
    with pytest.raises(RequestError, match="101 pictures is too long; at most 100"):
        order_of([(0, 101, False)], 2, 0)
