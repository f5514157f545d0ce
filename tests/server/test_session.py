"""Mailbox, rate, order, counts and barriers of one session, without a server or a thread."""

import math
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovoad_model.detector import Scores
from ovoad_model.window import Window, WindowState
from ovoad_server.engine.events import ActionEvent, EventRule
from ovoad_server.engine.replies import Dropped, Failed, Reply, Scored, Timing
from ovoad_server.engine.session import Policy, Session, WaitingFrame, Words


@dataclass(frozen=True)
class FakeVocabulary:
    """Words without embeddings."""

    labels: tuple[str, ...] = ("run",)
    warnings: tuple[str, ...] = ()
    scorer: str = "average"


@dataclass
class Desk:
    """A session and the replies that it sent."""

    session: Session
    replies: list[Reply] = field(default_factory=list)

    def offer(self, *seqs: int, now_s: float = 0.0) -> None:
        for seq in seqs:
            self.session.offer(seq, seq * 100, b"", now_s=now_s)

    def take(self, now_s: float = 0.0) -> int | None:
        frame = self.session.take(now_s)
        return None if frame is None else frame.seq

    def take_all(self) -> list[WaitingFrame]:
        frames = []
        while (frame := self.session.take(1e6)) is not None:
            frames.append(frame)
        return frames

    def score(self, frame: WaitingFrame, probability: float = 0.0) -> None:
        assert frame.words.vocabulary is not None
        values = np.full(len(frame.words.vocabulary.labels), probability, np.float32)
        scored = Scored(
            frame.seq,
            frame.timestamp_ms,
            frame.words.version,
            frame.words.vocabulary,
            Scores(values, 1.0, values),
            WindowState(1, 0, 0, True),
            Timing(0, 0, 0, 0, 0),
            self.session.backlog,
        )
        self.session.answer(scored)
        self.session.follow_events(frame, scored)

    def events(self) -> list[tuple[str, str]]:
        return [(r.kind, r.label) for r in self.replies if isinstance(r, ActionEvent)]


def open_desk(
    policy: Policy = "lossless", *, max_inflight: int = 3, max_fps: float = math.inf
) -> Desk:
    replies: list[Reply] = []
    session = Session(
        "a",
        policy=policy,
        window=Window(3),
        words=Words(1, FakeVocabulary()),
        rule=EventRule(0.5, 0.25, 0),
        max_inflight=max_inflight,
        max_fps=max_fps,
        reply=replies.append,
    )
    return Desk(session, replies)


# ---- policies ----------------------------------------------------------------------------------


def test_realtime_keeps_the_newest_and_answers_the_replaced_one_busy() -> None:
    desk = open_desk("realtime")
    desk.offer(0, 1, 2)
    assert desk.replies == [Dropped(0, 0, "busy"), Dropped(1, 100, "busy")]
    assert desk.take() == 2
    assert desk.take() is None


def test_realtime_has_room_whatever_is_unanswered() -> None:
    desk = open_desk("realtime", max_inflight=1)
    desk.offer(*range(100))
    assert desk.session.has_room()
    assert desk.session.backlog == 1


def test_realtime_does_not_drop_a_frame_that_is_being_scored() -> None:
    desk = open_desk("realtime")
    desk.offer(0)
    assert desk.take() == 0
    desk.offer(1)
    assert desk.replies == []


def test_lossless_hands_out_all_in_order_and_drops_none() -> None:
    desk = open_desk()
    desk.offer(*range(50))
    assert [frame.seq for frame in desk.take_all()] == list(range(50))
    assert desk.replies == []


def test_lossless_has_room_below_max_inflight_unanswered_frames() -> None:
    desk = open_desk(max_inflight=2)
    desk.offer(0)
    assert desk.session.has_room()
    desk.offer(1)
    assert not desk.session.has_room()
    frame = desk.session.take(0.0)
    assert frame is not None
    assert not desk.session.has_room(), "a frame that is being scored is still unanswered"
    desk.score(frame)
    assert desk.session.has_room()


# ---- rate --------------------------------------------------------------------------------------


def test_rate_limit_answers_the_replaced_one_rate() -> None:
    desk = open_desk("realtime", max_fps=10)
    for seq in (0, 1):  # the limit begins with the second frame
        desk.offer(seq, now_s=100.0)
        assert desk.take(100.0) == seq
    desk.offer(2, now_s=100.01)
    assert desk.take(100.02) is None
    assert desk.session.due_s() == pytest.approx(100.1)
    desk.offer(3, now_s=100.05)
    assert desk.replies == [Dropped(2, 200, "rate")]
    assert desk.take(100.1) == 3


@pytest.mark.parametrize("source_fps", [11, 30, 60, 240])
def test_rate_limit_thins_evenly(source_fps: int) -> None:
    desk = open_desk("realtime", max_fps=10)
    taken_s = []
    for index in range(source_fps * 10):
        now_s = 50 + index / source_fps
        desk.offer(index, now_s=now_s)
        if desk.take(now_s) is not None:
            taken_s.append(now_s)
    assert 99 <= len(taken_s) <= 102
    assert np.diff(taken_s[1:]).max() <= 0.1 + 1 / source_fps + 1e-9


def test_rate_limit_answers_the_newest_of_a_burst() -> None:
    desk = open_desk("realtime", max_fps=10)
    for seq in range(100):
        desk.offer(seq, now_s=5.0)
        desk.take(5.0)
    due_s = desk.session.due_s()
    assert due_s is not None
    assert desk.take(due_s) == 99


def test_silence_is_not_saved_up_for_a_burst() -> None:
    desk = open_desk("realtime", max_fps=10)
    desk.offer(0, now_s=0.0)
    desk.take(0.0)
    taken = []
    for seq in range(1, 50):
        desk.offer(seq, now_s=1000.0)
        taken.append(desk.take(1000.0))
    assert taken == [1, 2] + [None] * 47
    assert desk.take(1000.1) == 49


def test_lossless_is_not_slowed_by_the_rate() -> None:
    desk = open_desk(max_fps=10)
    for seq in range(50):
        desk.offer(seq, now_s=1.0)
        due_s = desk.session.due_s()
        assert due_s is not None
        assert due_s <= 1.0
        assert desk.take(1.0) == seq
    assert desk.replies == []


# ---- order and counts --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seq", "timestamp_ms"), [(5, 600), (4, 600), (6, 500), (6, 499), (5, 500), (0, 0)]
)
def test_frame_out_of_order_is_refused_and_the_next_goes_on(seq: int, timestamp_ms: int) -> None:
    desk = open_desk()
    desk.offer(5)
    desk.session.offer(seq, timestamp_ms, b"", now_s=0.0)
    desk.offer(6)
    message = (
        f"found seq {seq} at {timestamp_ms} ms after seq 5 at 500 ms, expected both to increase"
    )
    assert desk.replies == [Failed(seq, "out_of_order", message)]
    assert [frame.seq for frame in desk.take_all()] == [5, 6]
    assert desk.session.next_seq == 7


def test_reset_does_not_let_time_go_back() -> None:
    desk = open_desk()
    desk.offer(5)
    desk.session.reset()
    desk.offer(0)
    assert [type(reply) for reply in desk.replies] == [Failed]


def test_bad_answers_in_a_row_are_counted_until_a_good_one() -> None:
    desk = open_desk("realtime")
    desk.session.answer(Failed(None, "bad_frame", "x"))
    desk.session.answer(Dropped(0, 0, "busy"))
    desk.session.answer(Failed(1, "bad_image", "x"))
    assert desk.session.bad_in_a_row == 2
    desk.offer(2)
    desk.score(desk.take_all()[0])
    assert desk.session.bad_in_a_row == 0


@settings(max_examples=50, deadline=None)
@given(
    policy=st.sampled_from(["realtime", "lossless"]),
    steps=st.lists(st.tuples(st.sampled_from(["offer", "back", "take", "drop"]), st.floats(0, 1))),
)
def test_counts_add_up_and_every_frame_is_answered_once(
    policy: Policy, steps: list[tuple[str, float]]
) -> None:
    desk = open_desk(policy, max_fps=3)
    now_s, seq = 10.0, 0
    offered: list[int] = []
    for what, pause_s in steps:
        now_s += pause_s
        if what in ("offer", "back"):
            seq += 1
            offered.append(seq if what == "offer" else 0)
            desk.session.offer(offered[-1], offered[-1], b"", now_s=now_s)
        elif what == "drop":
            desk.session.drop_waiting("stale")
        elif (frame := desk.session.take(now_s)) is not None:
            desk.score(frame)
        assert desk.session.counts.unanswered == desk.session.backlog
    desk.session.drop_waiting("stale")
    answered = [reply.seq for reply in desk.replies if not isinstance(reply, ActionEvent)]
    assert sorted(seq for seq in answered if seq is not None) == sorted(offered)
    counts = desk.session.counts
    assert counts.unanswered == 0
    assert counts.received == len(offered)


# ---- barriers ----------------------------------------------------------------------------------


def test_frames_before_new_words_keep_the_old_ones() -> None:
    desk = open_desk()
    desk.offer(0, 1)
    desk.session.change_words(Words(2, FakeVocabulary(("walk",))))
    desk.offer(2)
    assert [frame.words.version for frame in desk.take_all()] == [1, 1, 2]


def test_frames_after_new_words_wait_until_these_are_embedded() -> None:
    desk = open_desk()
    words = Words(2, None)
    desk.offer(0)
    desk.session.change_words(words)
    desk.offer(1)
    assert desk.take() == 0
    assert desk.take() is None
    assert desk.session.due_s() is None, "no time of day brings the words"
    words.vocabulary = FakeVocabulary()
    assert desk.session.due_s() is not None
    assert desk.take() == 1


def test_frames_wait_in_order_through_two_changes_of_words() -> None:
    desk = open_desk()
    second, third = Words(2, None), Words(3, FakeVocabulary())
    desk.session.change_words(second)
    desk.offer(0)
    desk.session.change_words(third)
    desk.offer(1)
    assert desk.take() is None
    second.vocabulary = FakeVocabulary()
    assert [frame.words.version for frame in desk.take_all()] == [2, 3]


def test_reset_gives_later_frames_a_new_generation() -> None:
    desk = open_desk()
    desk.offer(0)
    desk.session.reset()
    desk.offer(1)
    assert [frame.generation for frame in desk.take_all()] == [0, 1]


# ---- events ------------------------------------------------------------------------------------


def test_reset_ends_the_actions_under_way_with_the_first_frame_after_it() -> None:
    desk = open_desk()
    desk.offer(0)
    desk.session.reset()
    desk.offer(1)
    before, after = desk.take_all()
    desk.score(before, 0.9)
    desk.score(after, 0.9)
    assert desk.events() == [("start", "run"), ("end", "run"), ("start", "run")]


def test_new_words_end_the_action_that_they_leave_out() -> None:
    desk = open_desk()
    desk.offer(0)
    desk.session.change_words(Words(2, FakeVocabulary(("walk",))))
    desk.offer(1)
    before, after = desk.take_all()
    desk.score(before, 0.9)
    desk.score(after, 0.9)
    assert desk.events() == [("start", "run"), ("end", "run"), ("start", "walk")]


def test_end_of_the_session_ends_the_actions_under_way() -> None:
    desk = open_desk()
    desk.offer(0)
    desk.score(desk.take_all()[0], 0.9)
    desk.session.finish_events()
    assert desk.events() == [("start", "run"), ("end", "run")]


def test_prediction_comes_before_the_events_that_it_brings() -> None:
    desk = open_desk()
    desk.offer(0)
    desk.score(desk.take_all()[0], 0.9)
    assert [type(reply) for reply in desk.replies] == [Scored, ActionEvent]
