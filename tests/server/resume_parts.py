"""Parts of tests of sessions that outlive a connection: breaking off, coming back, a clock."""

import contextlib
from collections.abc import AsyncIterator, Sequence

from ovoad_client import protocol

from .harness import Client, ColourEncoder, Server, occurs, until

PARK_S = 30.0


class Clock:
    """A clock that a test moves; the timer that frees a parked session goes by the real one."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


async def broken_off(server: Server, client: Client) -> None:
    """Cut a client's connection; its session is parked."""
    before = server.hub.parked
    client.break_off()
    await until(lambda: server.hub.parked == before + 1)


@contextlib.asynccontextmanager
async def resuming(
    server: Server, created: protocol.SessionCreated, last_seq: int | None, **fields: object
) -> AsyncIterator[tuple[Client, protocol.SessionCreated]]:
    """Connect again with a session's token."""
    async with server.connect() as client:
        resume = {"token": created.resume_token, "last_seq": last_seq}
        yield client, await client.create(["green"], resume=resume, **fields)


async def predicted(client: Client, seqs: Sequence[int]) -> list[protocol.Prediction]:
    """Return the next messages, which are the predictions of these frames."""
    predictions = [await client.expect(protocol.Prediction) for _ in seqs]
    assert [prediction.seq for prediction in predictions] == list(seqs)
    return predictions


async def hold_first(client: Client, encoder: ColourEncoder, first: int, *others: int) -> None:
    """Stop the worker inside a batch of the first of these frames, the others waiting."""
    encoder.entered.clear()
    encoder.hold.clear()
    await client.frame(first)
    await occurs(encoder.entered)
    for seq in others:
        await client.frame(seq)
