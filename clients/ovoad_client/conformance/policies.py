"""Checks of the two policies: every frame answered once, in order, at the rate allowed."""

import time
from collections import Counter
from typing import Final

from ovoad_client import protocol
from ovoad_client.conformance.check import Check
from ovoad_client.conformance.findings import MismatchError, NotCheckedError, equal, expect
from ovoad_client.conformance.target import FRAME_MS, Target, Wire, shown

MOST_FRAMES: Final = 96  # of a check; a slow machine has to score them all
BURST: Final = 24
Answers = dict[int, protocol.Prediction | protocol.FrameDropped]


async def _answers_all_in_order(target: Target) -> None:
    async with target.session() as wire:
        count = min(3 * wire.created.limits.max_inflight, MOST_FRAMES)
        for seq in range(count):
            await wire.frame(seq)
        for seq in range(count):
            prediction = await wire.predicted(seq)
            equal(prediction.timestamp_ms, seq * FRAME_MS, f"frame {seq} at ms")
        closed = await wire.finish()
    equal((closed.received, closed.predicted), (count, count), "received and predicted")


async def _answers_each_once(target: Target) -> None:
    async with target.session(policy="realtime") as wire:
        for seq in range(BURST):
            await wire.frame(seq)
        answers = await _answers(wire, BURST)
        closed = await wire.finish()
    expect(
        isinstance(answers[BURST - 1], protocol.Prediction),
        "the newest frame dropped",
        "a prediction of it",
    )
    drops = [answer for answer in answers.values() if isinstance(answer, protocol.FrameDropped)]
    reasons = Counter(drop.reason for drop in drops)
    told = protocol.DroppedCounts(busy=reasons["busy"], rate=reasons["rate"])
    equal(closed.dropped, told, "dropped by session.closed")
    found = (closed.received, closed.predicted)
    equal(found, (BURST, BURST - len(drops)), "received and predicted by session.closed")


async def _predicts_at_the_rate_allowed(target: Target) -> None:
    async with target.session(policy="realtime") as wire:
        max_fps = wire.created.limits.max_fps
        if max_fps > 10 * MOST_FRAMES:
            raise NotCheckedError(f"the server takes {max_fps:g} frames/s")
        started_s = time.monotonic()
        for seq in range(MOST_FRAMES):
            await wire.frame(seq)
        answers = await _answers(wire, MOST_FRAMES)
        seconds = time.monotonic() - started_s
    predicted = sum(isinstance(answer, protocol.Prediction) for answer in answers.values())
    most = int(max_fps * seconds) + 2
    expect(predicted <= most, f"{predicted} predictions in {seconds:.2f} s", f"at most {most}")


async def _answers(wire: Wire, count: int) -> Answers:
    """Return the answer of each of `count` frames; raises MismatchError for a second one."""
    answers: Answers = {}
    while len(answers) < count:
        message = await wire.hear()
        if not isinstance(message, protocol.Prediction | protocol.FrameDropped):
            raise MismatchError(shown(message), "a prediction or frame.dropped")
        expect(message.seq < count, f"an answer of frame {message.seq}", "one that was sent")
        expect(message.seq not in answers, f"frame {message.seq} answered twice", "once")
        equal(message.timestamp_ms, message.seq * FRAME_MS, f"frame {message.seq} at ms")
        if isinstance(message, protocol.FrameDropped):
            expect(message.reason != "stale", "a drop as stale", "busy or rate")
        answers[message.seq] = message
    return answers


CHECKS = (
    Check("lossless", "every frame is predicted once, in order", _answers_all_in_order),
    Check("realtime", "every frame is answered once, the newest predicted", _answers_each_once),
    Check("realtime.rate", "max_fps holds", _predicts_at_the_rate_allowed),
)
