"""Checks of resuming: what continues, what comes again, and who wins."""

import contextlib
from collections.abc import AsyncIterator

from ovoad_client import protocol
from ovoad_client.conformance.check import Check
from ovoad_client.conformance.findings import NotCheckedError, equal, expect
from ovoad_client.conformance.target import LABELS, Target, Wire


async def _continues(target: Target) -> None:
    token, _ = await _broken_session(target, frames=3)
    async with _resumed(target, token, last_seq=2) as wire:
        created = wire.created
        equal(created.next_seq, 3, "next_seq")
        equal(created.labels, list(LABELS), "labels")
        expect(created.resume_token != token, "the same resume_token", "a new one")
        await wire.frame(3)
        equal((await wire.predicted(3)).window.frames, 4, "frames in the window")
        closed = await wire.finish()
    equal((closed.received, closed.predicted), (4, 4), "received and predicted")


async def _answers_again(target: Target) -> None:
    token, predictions = await _broken_session(target, frames=3)
    async with _resumed(target, token, last_seq=0) as wire:
        for before in predictions[1:]:
            again = await wire.predicted(before.seq)
            equal(again.probabilities, before.probabilities, f"frame {before.seq} again as")
        await wire.finish()


async def _tokens_are_good_once(target: Target) -> None:
    token, _ = await _broken_session(target, frames=1)
    async with _resumed(target, token, last_seq=0) as wire:
        async with target.session(resume={"token": token, "last_seq": 0}) as second:
            equal(second.created.resumed, False, "resumed by a used token")
            await second.finish()
        await wire.frame(1)
        await wire.predicted(1)
        await wire.finish()


async def _is_honest_about_unknown_tokens(target: Target) -> None:
    resume = {"token": "never-given-out", "last_seq": 41}
    async with target.session(resume=resume) as wire:
        found = (wire.created.resumed, wire.created.next_seq)
        equal(found, (False, None), "resumed and next_seq")
        await wire.frame(0)
        equal((await wire.predicted(0)).window.frames, 1, "frames in the window")
        equal((await wire.finish()).received, 1, "received")


async def _lets_the_newer_connection_win(target: Target) -> None:
    async with target.session() as first:
        await first.frame(0)
        await first.predicted(0)
        async with _resumed(target, first.created.resume_token, last_seq=0) as second:
            await first.cut_off("superseded", protocol.CLOSE_PROTOCOL)
            await second.frame(1)
            equal((await second.predicted(1)).window.frames, 2, "frames in the window")
            await second.finish()


async def _broken_session(target: Target, *, frames: int) -> tuple[str, list[protocol.Prediction]]:
    """Break a session with so many answered frames; return its token and the answers."""
    async with target.session() as wire:
        predictions = []
        for seq in range(frames):
            await wire.frame(seq)
            predictions.append(await wire.predicted(seq))
        wire.break_off()
        return wire.created.resume_token, predictions


@contextlib.asynccontextmanager
async def _resumed(target: Target, token: str, *, last_seq: int) -> AsyncIterator[Wire]:
    """Go on with a session; raises NotCheckedError where it is gone, which is allowed."""
    async with target.session(resume={"token": token, "last_seq": last_seq}) as wire:
        if not wire.created.resumed:
            await wire.finish()
            raise NotCheckedError("the server keeps no broken sessions (resumed: false)")
        yield wire


CHECKS = (
    Check("resume", "window, words and counters continue", _continues),
    Check("resume.again", "answers after last_seq come again", _answers_again),
    Check("resume.once", "a token is good once", _tokens_are_good_once),
    Check("resume.unknown", "resumed: false, and a fresh session", _is_honest_about_unknown_tokens),
    Check(
        "resume.takeover", "the old connection is superseded, 1008", _lets_the_newer_connection_win
    ),
)
