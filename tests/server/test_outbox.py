"""Messages kept for a client that comes back: none lost, none twice by the outbox's own doing."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovoad_server import outbox as module
from ovoad_server.outbox import Outbox

from .harness import WAIT_S


def answer(seq: int) -> tuple[str, int | None]:
    return f"answer {seq}", seq


def event(number: int) -> tuple[str, int | None]:
    return f"event {number}", None


def filled(messages: Sequence[tuple[str, int | None]]) -> Outbox:
    """Return an outbox whose messages have all been sent."""
    outbox = Outbox()
    for text, seq in messages:
        outbox.put(text, seq=seq)
    send(outbox, len(messages))
    return outbox


def send(outbox: Outbox, count: int) -> list[str]:
    """Send messages that wait; a `get` that has one to give does not suspend."""
    texts = []
    for _ in range(count):
        getting = outbox.get()
        with pytest.raises(StopIteration) as done:
            getting.send(None)
        texts.append(str(done.value.value))
        outbox.sent()
    return texts


def unsent(outbox: Outbox) -> list[str]:
    return send(outbox, len(outbox))


def is_settled(outbox: Outbox) -> bool:
    return outbox.settled


def is_full(outbox: Outbox) -> bool:
    return outbox.full


# ---- replay --------------------------------------------------------------------------------------


def test_messages_leave_in_the_order_in_which_they_were_made() -> None:
    outbox = Outbox()
    for number in range(5):
        outbox.put(str(number))
    assert len(outbox) == 5
    assert unsent(outbox) == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("last_seq", [None, 0, 1, 2, 3])
def test_answers_after_the_last_one_seen_are_sent_again(last_seq: int | None) -> None:
    outbox = filled([answer(seq) for seq in range(4)])
    assert outbox.rewind(last_seq)
    first = 0 if last_seq is None else last_seq + 1
    assert unsent(outbox) == [f"answer {seq}" for seq in range(first, 4)]


def test_events_after_the_last_answer_seen_are_sent_again_with_the_answers() -> None:
    outbox = filled([answer(0), event(0), answer(1), event(1), event(2), answer(2), event(3)])
    assert outbox.rewind(1)
    assert unsent(outbox) == ["event 1", "event 2", "answer 2", "event 3"]


def test_events_after_the_very_last_answer_are_sent_again() -> None:
    outbox = filled([answer(0), event(0), answer(1), event(1), event(2)])
    assert outbox.rewind(1)
    assert unsent(outbox) == ["event 1", "event 2"]


def test_answers_out_of_order_leave_none_out() -> None:
    """Frames 1 and 2 are dropped while frame 0 is scored: their answers come first."""
    messages = [answer(1), answer(2), event(0), answer(0), event(1), answer(3)]
    outbox = filled(messages)
    assert outbox.rewind(None)
    assert unsent(outbox) == [text for text, _ in messages]
    outbox = filled(messages)
    assert outbox.rewind(2)
    assert unsent(outbox) == ["event 1", "answer 3"]


def test_an_answer_seen_after_a_missing_one_is_sent_again_and_one_before_it_is_not() -> None:
    outbox = filled([answer(2), answer(0), answer(1), event(0)])
    assert outbox.rewind(0)
    assert unsent(outbox) == ["answer 2", "answer 1", "event 0"]


def test_messages_not_sent_yet_follow_those_sent_again() -> None:
    outbox = filled([answer(0), answer(1)])
    outbox.put("answer 2", seq=2)
    outbox.put("event")
    assert outbox.rewind(0)
    assert unsent(outbox) == ["answer 1", "answer 2", "event"]


def test_a_second_break_sends_again_what_the_first_replay_brought() -> None:
    outbox = filled([answer(0), event(0), answer(1), answer(2)])
    assert outbox.rewind(0)
    assert send(outbox, 2) == ["event 0", "answer 1"]
    assert outbox.rewind(0)
    assert unsent(outbox) == ["event 0", "answer 1", "answer 2"]
    assert outbox.rewind(2)
    assert unsent(outbox) == []


def test_nothing_said_yet_is_nothing_to_replay() -> None:
    outbox = Outbox()
    assert outbox.rewind(None)
    assert unsent(outbox) == []


# ---- who waits -----------------------------------------------------------------------------------


async def test_get_waits_for_a_message_also_after_a_replay() -> None:
    outbox = filled([answer(0)])
    getting = asyncio.create_task(outbox.get())
    await asyncio.sleep(0)
    assert outbox.rewind(None)
    assert await asyncio.wait_for(getting, WAIT_S) == "answer 0"


def test_settled_means_that_all_has_left() -> None:
    outbox = Outbox()
    assert is_settled(outbox)
    outbox.put("a")
    assert not is_settled(outbox)
    getting = outbox.get()
    with pytest.raises(StopIteration):
        getting.send(None)
    assert not is_settled(outbox), "taken, but not known to have left"
    outbox.sent()
    assert is_settled(outbox)


# ---- bounds --------------------------------------------------------------------------------------


def kept_texts(outbox: Outbox) -> list[str]:
    return [entry.text for entry in outbox._kept]


def test_more_missed_than_kept_is_no_replay_and_changes_nothing() -> None:
    text = "x" * (module.KEPT_CHARACTERS // 20)
    outbox = filled([(text, seq) for seq in range(100)])
    outbox.put("waiting", seq=100)
    kept = kept_texts(outbox)
    for last_seq in (None, 0, 50):
        assert not outbox.rewind(last_seq)
        assert (kept_texts(outbox), len(outbox)) == (kept, 1)
    assert outbox.rewind(98)
    assert unsent(outbox) == [text, "waiting"]


def test_what_was_missed_may_be_all_that_is_kept_but_no_more() -> None:
    outbox = filled([("x" * module.KEPT_CHARACTERS, seq) for seq in range(100)])
    oldest = 100 - len(kept_texts(outbox))
    assert not outbox.rewind(oldest - 1), "what followed the answer before is kept no more"
    assert outbox.rewind(oldest)
    assert len(unsent(outbox)) == 99 - oldest


def test_sixteen_answers_are_kept_even_where_they_are_long() -> None:
    outbox = filled([("x" * 50_000, seq) for seq in range(100)])
    assert len(kept_texts(outbox)) == module.KEPT_ANSWERS


@pytest.mark.parametrize("length", [1, 30, 1000, 300_000, 3_000_000])
@pytest.mark.parametrize("answers_every", [0, 1, 10, 1000])
def test_kept_memory_is_bounded_whatever_is_said(length: int, answers_every: int) -> None:
    outbox = Outbox()
    text = "x" * length
    for number in range(4000):
        is_answer = answers_every > 0 and number % answers_every == 0
        outbox.put(text, seq=number if is_answer else None)
        send(outbox, 1)
    kept = kept_texts(outbox)
    assert len(kept) <= module.KEPT_MESSAGES
    assert sum(map(len, kept)) <= module.MOST_CHARACTERS
    assert outbox._kept_characters == sum(map(len, kept))
    assert outbox._kept_answers == sum(entry.seq is not None for entry in outbox._kept)


def test_flood_of_non_answers_before_any_answer_is_told_as_a_loss() -> None:
    outbox = filled([event(0)] + [("pong", None)] * module.KEPT_MESSAGES)
    assert not outbox.rewind(None), "event 0 is kept no more"
    outbox.put("answer 0", seq=0)
    send(outbox, 1)
    assert outbox.rewind(0), "a client that saw the answer saw what came before it"


def test_waiting_messages_fill_it_by_number_and_by_length() -> None:
    outbox = Outbox()
    assert not is_full(outbox)
    for _ in range(module.WAITING_MESSAGES + 1):
        outbox.put("x")
    assert is_full(outbox)
    unsent(outbox)
    assert not is_full(outbox)
    for _ in range(3):
        outbox.put("x" * (module.MOST_CHARACTERS // 2))
    assert is_full(outbox)
    unsent(outbox)
    assert not is_full(outbox)


# ---- any conversation, cut anywhere --------------------------------------------------------------


@dataclass
class Viewer:
    """A client: what it saw, and up to which seq every frame of its was answered."""

    seen: list[str]

    def last_seq(self, frames: Sequence[int]) -> int | None:
        last = None
        for seq in sorted(frames):
            if f"answer {seq}" not in self.seen:
                break
            last = seq
        return last


@given(data=st.data(), small=st.booleans(), seed=st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_what_was_seen_and_what_is_replayed_is_everything(
    data: st.DataObject, small: bool, seed: int
) -> None:
    """Any order of answers, any cuts: nothing is lost, and False is told where something is."""
    order = random.Random(seed)
    with pytest.MonkeyPatch.context() as patch:
        if small:
            patch.setattr(module, "KEPT_CHARACTERS", 40)
            patch.setattr(module, "KEPT_ANSWERS", 2)
            patch.setattr(module, "KEPT_MESSAGES", 12)
        frames = sorted(data.draw(st.sets(st.integers(0, 60), max_size=25)))
        made = converse(frames, order)
        outbox, viewer = Outbox(), Viewer([])
        waiting = list(made)
        old = 0  # what was seen over earlier connections is seen for good
        for step in data.draw(st.lists(st.sampled_from(["put", "send", "cut"]), max_size=80)):
            if step == "put" and waiting:
                text, seq = waiting.pop(0)
                outbox.put(text, seq=seq)
            elif step == "send" and len(outbox):
                viewer.seen += send(outbox, 1)
            elif step == "cut":
                lost = data.draw(st.integers(0, 6))
                viewer.seen = viewer.seen[: max(old, len(viewer.seen) - lost)]
                old = len(viewer.seen)
                if not outbox.rewind(viewer.last_seq(frames)):
                    assert small
                    return
        for text, seq in waiting:
            outbox.put(text, seq=seq)
        viewer.seen += unsent(outbox)
    assert set(viewer.seen) == {text for text, _ in made}
    firsts = list(dict.fromkeys(viewer.seen))
    assert [text for text in firsts if "event" in text] == [
        text for text, seq in made if seq is None
    ], "events are first seen in the order in which they were made"


def converse(frames: Sequence[int], order: random.Random) -> list[tuple[str, int | None]]:
    """Return answers roughly in order, with events between them."""
    late = sorted(frames, key=lambda seq: seq + order.choice([0, 0, 0, 3, 9]))
    messages: list[tuple[str, int | None]] = []
    for number, seq in enumerate(late):
        messages.append(answer(seq))
        if order.random() < 0.5:
            messages.append(event(number))
    return messages
