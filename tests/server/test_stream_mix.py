"""Random mixes of everything that a client can send: every frame is answered exactly once."""

import asyncio
import base64
import random
from collections import Counter

import pytest

from ovoad_client import protocol

from .harness import Serve, picture


@pytest.mark.parametrize("policy", ["realtime", "lossless"])
@pytest.mark.parametrize("seed", range(3))
async def test_every_frame_is_answered_exactly_once_whatever_the_mix(
    serve: Serve, policy: str, seed: int
) -> None:
    async with serve(max_fps=2000) as server:
        async with asyncio.TaskGroup() as tasks:
            for index in range(3):
                mix = random.Random(f"{policy} {seed} {index}")
                tasks.create_task(play_random_session(server.session, policy, mix))
        await server.is_empty()


async def play_random_session(session: object, policy: str, mix: random.Random) -> None:
    """Send a random mix of everything; check that the answers add up."""
    assert callable(session)
    async with session(policy=policy) as client:
        sent: Counter[int] = Counter()
        asked: Counter[str] = Counter()
        for seq in range(60):
            what = mix.choice(["frame"] * 8 + ["base64", "bad", "late", "ping", "words", "reset"])
            colour = mix.choice(["red", "green", "blue"])
            if what == "frame":
                await client.frame(seq, picture(colour))
            elif what == "base64":
                text = base64.b64encode(picture(colour)).decode()
                await client.send(
                    protocol.FrameMessage(seq=seq, timestamp_ms=seq * 250, image_base64=text)
                )
            elif what == "bad":
                await client.frame(seq, b"no image")
            elif what == "late":
                await client.frame(0, picture(colour), timestamp_ms=-1)
            elif what == "ping":
                await client.send(protocol.Ping())
            elif what == "words":
                words = protocol.Vocabulary(labels=[f"word {seq}", colour])
                await client.send(protocol.VocabularyUpdate(vocabulary=words))
            else:
                await client.send(protocol.SessionReset())
            if what in ("frame", "base64", "bad", "late"):
                sent[0 if what == "late" else seq] += 1
            asked[what] += 1
        await client.send(protocol.SessionClose())
        check_answers(await client.rest(), sent, asked)


def check_answers(
    messages: list[protocol.ServerMessage], sent: Counter[int], asked: Counter[str]
) -> None:
    closed = messages[-1]
    assert isinstance(closed, protocol.SessionClosed), closed
    kinds = Counter(message.type for message in messages)
    answered = Counter(
        message.seq
        for message in messages
        if isinstance(message, protocol.Prediction | protocol.FrameDropped | protocol.Error)
    )
    assert answered == sent
    assert kinds["pong"] == asked["ping"]
    assert kinds["vocabulary.updated"] == asked["words"]
    assert kinds["session.was_reset"] == asked["reset"]
    dropped = closed.dropped.busy + closed.dropped.rate + closed.dropped.stale
    assert (closed.received, closed.predicted) == (sent.total(), kinds["prediction"])
    assert (dropped, closed.errors) == (kinds["frame.dropped"], kinds["error"])
    assert closed.received == closed.predicted + dropped + closed.errors
    predicted = [message.seq for message in messages if isinstance(message, protocol.Prediction)]
    assert predicted == sorted(predicted)
