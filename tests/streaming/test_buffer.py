"""What waits, what is skipped, who waits: by policy, with bounded memory."""

import threading

import pytest

from vidette.errors import SettingError
from vidette.streaming.buffer import BUFFER_POLICIES, FrameBuffer


def fill(buffer, numbers, source=0):
    for number in numbers:
        buffer.put(source, number, arrived_seconds=float(number))


def items(taken):
    return {source: waiting.item for source, waiting in taken.items()}


def test_newest_skips_what_is_older_than_it_may_be():
    buffer = FrameBuffer("newest", num_sources=1)
    fill(buffer, range(10))
    assert items(buffer.take(now=9.5, keep_seconds=2.0)) == {0: 8}
    assert buffer.num_skipped(0) == 8
    assert buffer.backlog(0) == 1
    assert items(buffer.take(now=20.0)) == {0: 9}, "the newest is spared"
    assert buffer.take(now=21.0) == {}


def test_newest_may_wait_for_a_fresh_one():
    buffer = FrameBuffer("newest", num_sources=1)
    fill(buffer, [0, 1])
    assert buffer.take(now=5.0, last_seconds=1.0) == {}
    assert buffer.num_skipped(0) == 2
    fill(buffer, [6])
    assert items(buffer.take(now=6.5, last_seconds=1.0)) == {0: 6}


def test_memory_is_bounded_where_nobody_takes():
    buffer = FrameBuffer("newest", num_sources=1, capacity=4)
    fill(buffer, range(1000))
    assert buffer.backlog(0) == 4
    assert buffer.num_skipped(0) == 996


@pytest.mark.parametrize("policy", ["all", "block"])
def test_the_others_skip_nothing_and_let_the_source_wait(policy):
    buffer = FrameBuffer(policy, num_sources=1, capacity=3 if policy == "all" else None)
    most, done = [], []

    def read():
        fill(buffer, range(50))
        buffer.end(0)
        done.append(True)

    reader = threading.Thread(target=read)
    reader.start()
    got = []
    while not buffer.is_done(0):
        buffer.wait(5.0)
        most.append(buffer.backlog(0))
        got += items(buffer.take(now=1e9)).values()
    reader.join(5.0)
    assert got == list(range(50))
    assert max(most) <= (3 if policy == "all" else 1)
    assert buffer.num_skipped(0) == 0
    assert done


def test_many_sources_keep_their_order():
    buffer = FrameBuffer("all", num_sources=4, capacity=2)

    def read(source):
        for number in range(40):
            buffer.put(source, (source, number), arrived_seconds=0.0)
        buffer.end(source)

    readers = [threading.Thread(target=read, args=(source,)) for source in range(4)]
    for reader in readers:
        reader.start()
    got = {source: [] for source in range(4)}
    while not all(buffer.is_done(source) for source in range(4)):
        buffer.wait(5.0)
        for source, waiting in buffer.take(now=0.0).items():
            got[source].append(waiting.item)
    for reader in readers:
        reader.join(5.0)
    assert got == {source: [(source, number) for number in range(40)] for source in range(4)}


def test_closing_frees_who_waits():
    buffer = FrameBuffer("block", num_sources=1)
    assert buffer.put(0, 1, arrived_seconds=0.0)
    answers = []
    waiting = threading.Thread(target=lambda: answers.append(buffer.put(0, 2, arrived_seconds=0.0)))
    waiting.start()
    buffer.close()
    waiting.join(5.0)
    assert answers == [False]


def test_waiting_ends_with_the_sources():
    buffer = FrameBuffer("newest", num_sources=2)
    assert not buffer.wait(0.01)
    buffer.end(0)
    buffer.end(1)
    assert buffer.wait(0.01)
    assert buffer.is_done(0)


def test_wrong_settings_are_refused():
    with pytest.raises(SettingError, match="did you mean 'newest'"):
        FrameBuffer("newst", num_sources=1)
    with pytest.raises(SettingError, match="expected 1 or more"):
        FrameBuffer("all", num_sources=1, capacity=0)
    assert set(BUFFER_POLICIES) == {"newest", "all", "block"}
