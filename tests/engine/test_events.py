from __future__ import annotations

import asyncio
from threading import Thread

import pytest

from webui.engine.events import KEPT_JOBS, Events
from webui.engine.jobs import Event


async def gathered(events: Events, after: int = 0) -> list[Event]:
    return [event async for event in events.follow("job", after)]


def told(events: Events, *kinds: str) -> None:
    for kind in kinds:
        events.tell("job", kind, {})


def test_events_are_numbered_and_the_newest_step_is_kept() -> None:
    events = Events()
    told(events, "queued", "started", "step", "step", "preview", "step", "picture", "step", "picture", "done")
    kept = events.since("job")
    assert [(event.number, event.kind) for event in kept] == [
        (1, "queued"), (2, "started"), (5, "preview"), (7, "picture"), (8, "step"), (9, "picture"), (10, "done"),
    ]  # fmt: skip


@pytest.mark.parametrize(("after", "heard"), [(0, [1, 2, 3]), (1, [2, 3]), (2, [3]), (3, []), (99, [])])
def test_a_listener_resumes_after_what_it_saw_and_comes_to_the_end(after: int, heard: list[int]) -> None:
    events = Events()
    told(events, "queued", "picture", "done")
    found = asyncio.run(asyncio.wait_for(gathered(events, after), 5))
    assert [event.number for event in found] == heard


def test_a_listener_hears_what_other_threads_tell() -> None:
    events = Events()

    async def main() -> list[Event]:
        listening = asyncio.create_task(gathered(events))
        await asyncio.sleep(0.05)
        speaker = Thread(target=told, args=(events, "queued", "started", *["picture"] * 50, "failed"))
        speaker.start()
        heard = await asyncio.wait_for(listening, 10)
        speaker.join()
        return heard

    heard = asyncio.run(main())
    assert [event.number for event in heard] == list(range(1, 54))
    assert heard[-1].kind == "failed"


def test_two_listeners_hear_the_same() -> None:
    events = Events()

    async def main() -> list[list[Event]]:
        listening = [asyncio.create_task(gathered(events)) for _ in range(2)]
        await asyncio.sleep(0.05)
        told(events, "queued", "picture", "interrupted")
        return await asyncio.wait_for(asyncio.gather(*listening), 5)

    first, second = asyncio.run(main())
    assert first == second and len(first) == 3


def test_a_listener_whose_loop_is_closed_stops_nobody() -> None:
    events = Events()

    async def leave() -> None:
        task = asyncio.create_task(gathered(events))
        await asyncio.sleep(0.01)
        asyncio.get_running_loop().call_soon(task.cancel)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(leave())
    loop.close()
    told(events, "queued", "done")
    assert [event.kind for event in events.since("job")] == ["queued", "done"]


def test_numbers_go_on_after_a_restart() -> None:
    events = Events()
    events.begin("job", 1000)
    told(events, "started", "done")
    assert [event.number for event in events.since("job")] == [1001, 1002]


def test_only_finished_jobs_are_forgotten() -> None:
    events = Events()
    told(events, "queued")
    for number in range(KEPT_JOBS + 20):
        events.tell(f"other {number}", "done", {})
    assert events.knows("job") and not events.knows("other 0")
