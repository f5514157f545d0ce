"""Checks of messages beside frames: ping, reset, new words, bad messages, events, the close."""

import functools
from collections.abc import Mapping
from typing import Any, Final

from ovoad_client import protocol
from ovoad_client.conformance.check import Check
from ovoad_client.conformance.findings import MismatchError, NotCheckedError, equal, expect
from ovoad_client.conformance.pictures import JPEG, NO_PICTURE
from ovoad_client.conformance.target import FRAME_MS, LABELS, Target, shown

NEW_LABELS: Final = ("juggling a ball", "riding a bicycle", "opening a door")
BAD_MESSAGES: Final[Mapping[str, Any]] = {
    "not_json": "{",
    "no_type": {"seq": 1},
    "unknown_type": {"type": "session.created"},
    "unknown_field": {"type": "ping", "surprise": 1},
    "missing_field": {"type": "frame", "seq": 1},
    "seq": {"type": "frame", "seq": 2**32, "timestamp_ms": 0, "image_base64": ""},
}
EAGER: Final = {"enter": 1e-6, "exit": 0.0, "min_duration_ms": 0}  # nearly all is an event


async def _pongs(target: Target, *, nonce: str | None) -> None:
    async with target.session() as wire:
        await wire.say(protocol.Ping(nonce=nonce))
        equal((await wire.hear_a(protocol.Pong)).nonce, nonce, "nonce")


async def _pongs_among_frames(target: Target) -> None:
    async with target.session() as wire:
        for seq in range(4):
            await wire.frame(seq)
            await wire.say(protocol.Ping(nonce=str(seq)))
        heard = [await wire.hear() for _ in range(8)]
        nonces = [message.nonce for message in heard if isinstance(message, protocol.Pong)]
        equal(nonces, ["0", "1", "2", "3"], "nonces")
        equal(_seqs(heard), [0, 1, 2, 3], "predictions of")


async def _forgets(target: Target) -> None:
    async with target.session() as wire:
        for seq in range(3):
            await wire.frame(seq)
            equal((await wire.predicted(seq)).window.frames, seq + 1, "frames in the window")
        await wire.say(protocol.SessionReset())
        await wire.hear_a(protocol.SessionWasReset)
        await wire.frame(3)
        window = (await wire.predicted(3)).window
        equal((window.frames, window.gaps), (1, 0), "frames and gaps after a reset")


async def _scores_by_the_words_of_the_time(target: Target) -> None:
    count = 5
    async with target.session() as wire:
        for seq in range(count):
            await wire.frame(seq)
        vocabulary = protocol.Vocabulary(labels=list(NEW_LABELS))
        await wire.say(protocol.VocabularyUpdate(vocabulary=vocabulary))
        for seq in range(count, 2 * count):
            await wire.frame(seq)
        heard = [await wire.hear() for _ in range(2 * count + 1)]
    updates = [message for message in heard if isinstance(message, protocol.VocabularyUpdated)]
    equal(len(updates), 1, "vocabulary.updated, times")
    (update,) = updates
    equal((update.vocabulary_version, update.from_seq), (2, count), "version and from_seq")
    equal(update.labels, list(NEW_LABELS), "labels")
    equal(_seqs(heard), list(range(2 * count)), "predictions of")
    for message in heard:
        if isinstance(message, protocol.Prediction):
            version, labels = (1, LABELS) if message.seq < count else (2, NEW_LABELS)
            found = (message.vocabulary_version, len(message.probabilities or []))
            equal(found, (version, len(labels)), f"frame {message.seq} scored by version, labels")


async def _keeps_images_over_new_words(target: Target) -> None:
    async with target.session() as wire:
        await wire.frame(0)
        await wire.predicted(0)
        await wire.say(protocol.VocabularyUpdate(vocabulary=protocol.Vocabulary(labels=["a b"])))
        await wire.hear_a(protocol.VocabularyUpdated)
        await wire.frame(1)
        equal((await wire.predicted(1)).window.frames, 2, "frames in the window")


async def _keeps_the_old_words(target: Target) -> None:
    async with target.session() as wire:
        await wire.say({"type": "vocabulary.update", "vocabulary": {"labels": ["a", "a"]}})
        await wire.refused("bad_vocabulary")
        await wire.frame(0)
        prediction = await wire.predicted(0)
        found = (prediction.vocabulary_version, len(prediction.probabilities or []))
        equal(found, (1, len(LABELS)), "version and labels")


async def _bears(target: Target, *, message: Any) -> None:
    async with target.session() as wire:
        await wire.say(message)
        await wire.refused("bad_message")
        await wire.frame(0)
        await wire.predicted(0)


async def _tells_events_in_pairs(target: Target) -> None:
    async with target.session(events=EAGER) as wire:
        for seq in range(3):
            await wire.frame(seq)
        await wire.say(protocol.SessionClose())
        acting: dict[str, protocol.Event] = {}
        started = 0
        while not isinstance(message := await wire.hear(), protocol.SessionClosed):
            if isinstance(message, protocol.Event):
                started += message.kind == "start"
                _take_event(message, acting)
    if not started:
        raise NotCheckedError("no label reached a probability of 1e-6")
    equal(sorted(acting), [], "actions that started and never ended")


def _take_event(event: protocol.Event, acting: dict[str, protocol.Event]) -> None:
    expect(event.label in LABELS, f"an event of {event.label!r}", f"one of {LABELS}")
    if event.kind == "start":
        expect(event.label not in acting, f"{event.label!r} started twice", "an end between")
        start_ms = event.start_ms
        within = start_ms is not None and 0 <= start_ms <= event.timestamp_ms <= 2 * FRAME_MS
        expect(within, f"start_ms {start_ms} at {event.timestamp_ms} ms", "it within the stream")
        acting[event.label] = event
    else:
        expect(event.label in acting, f"{event.label!r} ended", "its start before")
        del acting[event.label]


async def _closes_in_order(target: Target) -> None:
    async with target.session() as wire:
        closed = await wire.finish()
    expected = protocol.DroppedCounts()
    found = (closed.received, closed.predicted, closed.errors, closed.dropped)
    equal(found, (0, 0, 0, expected), "received, predicted, errors, dropped")
    expect(bool(closed.reason), "an empty reason", "why the session ended")


async def _answers_before_it_closes(target: Target) -> None:
    async with target.session() as wire:
        for seq in range(6):
            await wire.frame(seq, NO_PICTURE if seq == 2 else JPEG)
        await wire.say(protocol.SessionClose())
        answered = []
        while not isinstance(message := await wire.hear(), protocol.SessionClosed):
            if not isinstance(message, protocol.Prediction | protocol.Error):
                raise MismatchError(shown(message), "an answer of a frame")
            answered.append(message.seq)
        await wire.ended(protocol.CLOSE_NORMAL)
    equal(sorted(answered, key=str), list(range(6)), "answers of")
    found = (message.received, message.predicted, message.errors)
    equal(found, (6, 5, 1), "received, predicted and errors")


def _seqs(heard: list[protocol.ServerMessage]) -> list[int]:
    return [message.seq for message in heard if isinstance(message, protocol.Prediction)]


async def _goes_away(target: Target) -> None:
    raise NotCheckedError("only a restart of the server shows it")


CHECKS = (
    Check("ping", "is answered with its nonce", functools.partial(_pongs, nonce="n1")),
    Check("ping.bare", "is answered without one", functools.partial(_pongs, nonce=None)),
    Check("ping.among_frames", "none is lost, order is kept", _pongs_among_frames),
    Check("reset", "the window starts anew", _forgets),
    Check(
        "vocabulary.barrier", "old words before it, new after it", _scores_by_the_words_of_the_time
    ),
    Check("vocabulary.images_stay", "the window goes on", _keeps_images_over_new_words),
    Check("vocabulary.refused", "leaves the old words in force", _keeps_the_old_words),
    *(
        Check(
            f"message.refuses.{name}",
            "bad_message; the session goes on",
            functools.partial(_bears, message=message),
        )
        for name, message in BAD_MESSAGES.items()
    ),
    Check("events", "each start has its end", _tells_events_in_pairs),
    Check("close", "session.closed and 1000", _closes_in_order),
    Check("close.counts", "frames are answered first, and add up", _answers_before_it_closes),
    Check("goaway", "is told before a restart, then 1012", _goes_away),
)
