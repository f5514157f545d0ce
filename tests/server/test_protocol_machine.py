"""Random conversations with a real server, held against a model of the contract, step by step.

FUZZ_EXAMPLES=2000 python -m pytest tests/server/test_protocol_machine.py runs longer, and at
random, where the usual run repeats the same few conversations.
"""

import asyncio
import base64
import contextlib
import os
from collections.abc import Awaitable, Sequence
from typing import Literal, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from websockets.exceptions import ConnectionClosed

from ovoad_client import protocol
from ovoad_model.detector import Detector

from .conversation import Answer, Conversation
from .harness import NO_EVENTS, Client, Server, create, picture, serving, words

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "10"))
STEPS = 30
RESUME_S = 30.0
T = TypeVar("T")
Place = Literal["outside", "connected", "session"]
COLOUR = st.sampled_from(["red", "green", "blue"])
LABELS = st.lists(st.sampled_from(["red", "green", "blue"]), min_size=1, max_size=3, unique=True)
LOUD_EVENTS = {"enter": 0.02, "exit": 0.01, "min_duration_ms": 0}
STEP_MS = st.sampled_from([250, 250, 250, 500, 2500, 10_000])
BAD_TEXT = st.sampled_from(
    [
        *("", "x", "null", "[]", "{}", '{"type": "session.created"}', "[" * 500),
        *('{"type": "ping", "more": 1}', '{"type": "ping", "nonce": 1}', '{"type": "frame"}'),
    ]
)
BAD_HEADER = st.sampled_from([b"", b"OV", b"OV\x01\0" + bytes(12), b"XX\x01\0" + bytes(20)])
BAD_IMAGE = st.sampled_from([b"no image", picture()[:-9], b"\xff\xd8\xff\xd9", bytes(50)])
BAD_WORDS = st.sampled_from([words(), words(""), words("a", "a"), words("a", templates=["x"]), {}])


class ProtocolMachine(RuleBasedStateMachine):
    """A client that does anything in any order, and checks all that comes back."""

    def __init__(self, runner: asyncio.Runner, server: Server, policy: protocol.Policy) -> None:
        super().__init__()
        self._runner = runner
        self._server = server
        self._policy: protocol.Policy = policy
        self._exits = contextlib.AsyncExitStack()
        self._client: Client | None = None
        self._session: Conversation | None = None
        self._place: Place = "outside"
        self._over = False  # the session was ended by the server; what is sent since goes nowhere
        self._token = ""  # resumes the session
        self._used_tokens: list[str] = []

    def run(self, work: Awaitable[T]) -> T:
        """Let server and client live while something is done."""

        async def wait() -> T:
            return await work

        return self._runner.run(wait())

    # ---- connections ----------------------------------------------------------------------------

    @initialize(events=st.booleans())
    def begin(self, events: bool) -> None:
        """Start every conversation with a session."""
        self.connect()
        self.create_session(labels=["red", "blue"], top_k=None, events=events)

    @rule()
    @precondition(lambda self: self._place == "outside")
    def connect(self) -> None:
        """Open a connection."""
        self._client = self.run(self._exits.enter_async_context(self._server.connect()))
        self._place = "connected"

    @rule(labels=LABELS, top_k=st.sampled_from([None, None, 1, 5]), events=st.booleans())
    @precondition(lambda self: self._place == "connected")
    def create_session(self, labels: list[str], top_k: int | None, events: bool) -> None:
        """Create a session; it starts at version 1 and knows of nothing before."""
        created = self.run(
            self._connection.create(
                labels,
                policy=self._policy,
                scorer="frame",
                events=LOUD_EVENTS if events else NO_EVENTS,
                **({} if top_k is None else {"top_k": top_k}),
            )
        )
        assert (created.labels, created.vocabulary_version) == (labels, 1)
        assert (created.policy, created.resumed) == (self._policy, False)
        self._begins(Conversation(self._policy, {1: tuple(labels)}, top_k), created)

    @rule(in_flight=st.integers(0, 6))
    @precondition(lambda self: self._place == "session")
    def break_and_resume(self, in_flight: int) -> None:
        """Break with frames in flight and resume: nothing that arrived is lost, words included."""
        self.send_frame(colour="red", step_ms=250, skip=1)
        self.settle()
        if self._over:
            return
        conversation = self._conversation
        assert conversation.last is not None
        answered = conversation.last[0]
        for _ in range(in_flight):
            self._send_image(picture("blue"), "blue", "prediction")
        self._connection.break_off()
        self.connect()
        created = self._resume(answered)
        assert (created.resumed, created.resume_token != self._token) == (True, True)
        assert created.vocabulary_version == conversation.version
        assert tuple(created.labels) == conversation.labels[conversation.version]
        assert created.next_seq is not None
        assert answered < created.next_seq <= answered + in_flight + 1
        conversation.resumed_at(created.next_seq)
        self._used_tokens.append(self._token)
        self._begins(conversation, created)

    @rule()
    @precondition(lambda self: self._place == "connected")
    def resume_twice(self) -> None:
        """A token is good once: the second time it starts a session anew."""
        if not self._used_tokens:
            return
        created = self._resume(0, token=self._used_tokens[-1])
        assert (created.resumed, created.vocabulary_version) == (False, 1)
        self._begins(Conversation(self._policy, {1: ("green",)}), created)

    @rule(first=st.one_of(BAD_TEXT, BAD_HEADER, st.just('{"type": "ping"}')))
    @precondition(lambda self: self._place == "connected")
    def send_something_before_create(self, first: str | bytes) -> None:
        """Anything else first is told and ends the connection."""
        self.run(self._connection.send(first))
        error = self.run(self._connection.expect(protocol.Error))
        assert (error.fatal, error.code in ("bad_message", "out_of_turn")) == (True, True)
        assert self.run(self._connection.ended())[0] == protocol.CLOSE_PROTOCOL
        self._forget()

    @rule()
    @precondition(lambda self: self._place == "connected")
    def leave(self) -> None:
        """Close the connection before there is a session."""
        self.run(self._connection.socket.close())
        self._forget()

    # ---- frames ---------------------------------------------------------------------------------

    @rule(colour=COLOUR, step_ms=STEP_MS, skip=st.sampled_from([1, 1, 1, 5]))
    @precondition(lambda self: self._place == "session")
    def send_frame(self, colour: str, step_ms: int, skip: int) -> None:
        """Send a good frame."""
        self._send_image(picture(colour), colour, "prediction", step_ms=step_ms, skip=skip)

    @rule(image=BAD_IMAGE)
    @precondition(lambda self: self._place == "session")
    def send_bad_image(self, image: bytes) -> None:
        """Send a frame whose image is none."""
        self._send_image(image, "", "bad_image")

    @rule(count=st.integers(2, 12), colour=COLOUR)
    @precondition(lambda self: self._place == "session")
    def send_burst(self, count: int, colour: str) -> None:
        """Send frames faster than they are answered."""
        for _ in range(count):
            self._send_image(picture(colour), colour, "prediction")

    @rule(colour=COLOUR, good=st.booleans())
    @precondition(lambda self: self._place == "session")
    def send_frame_as_text(self, colour: str, good: bool) -> None:
        """Send a frame in base64, or in what is none."""
        seq, timestamp_ms = self._next(250, 1)
        text = base64.b64encode(picture(colour)).decode() if good else "!"
        self._conversation.sends_frame(
            seq, timestamp_ms, colour, "prediction" if good else "bad_frame"
        )
        self._send(protocol.FrameMessage(seq=seq, timestamp_ms=timestamp_ms, image_base64=text))

    @rule(back=st.integers(0, 5), back_ms=st.integers(0, 500))
    @precondition(lambda self: self._place == "session")
    def send_late_frame(self, back: int, back_ms: int) -> None:
        """Send a frame that is not later than the last."""
        if self._conversation.last is None:
            return
        seq, timestamp_ms = self._conversation.last
        seq, timestamp_ms = max(seq - back, 0), timestamp_ms - back_ms
        self._conversation.sends_frame(seq, timestamp_ms, "red", "prediction")
        self._send(protocol.pack_frame(seq, timestamp_ms, picture()))

    @rule(data=BAD_HEADER)
    @precondition(lambda self: self._place == "session")
    def send_bad_header(self, data: bytes) -> None:
        """Send a binary message that is no frame; it counts as one."""
        self._conversation.received += 1
        self._conversation.errors.append("bad_frame")
        self._send(data)

    # ---- control --------------------------------------------------------------------------------

    @rule(text=BAD_TEXT)
    @precondition(lambda self: self._place == "session")
    def send_bad_text(self, text: str) -> None:
        """Send a text message that is none of the contract's."""
        self._conversation.errors.append("bad_message")
        self._send(text)

    @rule()
    @precondition(lambda self: self._place == "session")
    def create_twice(self) -> None:
        """Create a session within one."""
        self._conversation.errors.append("out_of_turn")
        self._send(create())

    @rule(nonce=st.sampled_from([None, "", "a", "é" * 128]))
    @precondition(lambda self: self._place == "session")
    def ping(self, nonce: str | None) -> None:
        """Ask for a pong."""
        self._conversation.pongs.append(nonce)
        self._send(protocol.Ping(nonce=nonce))

    @rule(labels=LABELS)
    @precondition(lambda self: self._place == "session")
    def update_words(self, labels: list[str]) -> None:
        """Change the words for the frames from now on."""
        self._conversation.sends_update(labels)
        self._send(protocol.VocabularyUpdate(vocabulary=protocol.Vocabulary(labels=labels)))

    @rule(vocabulary=BAD_WORDS)
    @precondition(lambda self: self._place == "session")
    def refuse_words(self, vocabulary: dict[str, object]) -> None:
        """Send words that are refused; the old ones stay."""
        self._conversation.errors.append("bad_vocabulary")
        self._send({"type": "vocabulary.update", "vocabulary": vocabulary})

    @rule()
    @precondition(lambda self: self._place == "session")
    def reset(self) -> None:
        """Empty the window."""
        self._conversation.sends_reset()
        self._send(protocol.SessionReset())

    @rule()
    @precondition(lambda self: self._place == "session")
    def settle(self) -> None:
        """Wait until all is answered, or the session has ended."""
        conversation = self._conversation
        while not (self._over or conversation.settled or conversation.ending):
            conversation.takes(self.run(self._connection.receive()))
        if conversation.ending and not self._over:
            self._end_badly()

    @rule()
    @precondition(lambda self: self._place == "session")
    def close(self) -> None:
        """Close in order: all is answered first, and the counts are right.

        Where the eighth bad answer in a row was made before the close was read, that is the end.
        """
        conversation = self._conversation
        if not self._send(protocol.SessionClose()):
            self._forget()
            return
        message = self.run(self._connection.receive())
        while not isinstance(message, protocol.SessionClosed):
            if isinstance(message, protocol.Error) and message.fatal:
                self._ends_badly(message, self.run(self._connection.rest()))
                self._forget()
                return
            conversation.takes(message)
            message = self.run(self._connection.receive())
        conversation.takes_end(message)
        assert message.reason == "closed by client"
        ended = self.run(self._connection.ended())
        assert ended == (protocol.CLOSE_NORMAL, "closed by client")
        self._forget()

    def teardown(self) -> None:
        """Close what is open; nothing of any session is left."""
        if self._place == "session":
            self.close()
        self.run(self._exits.aclose())
        self.run(self._server.is_empty())

    # ---- parts ----------------------------------------------------------------------------------

    @property
    def _connection(self) -> Client:
        assert self._client is not None
        return self._client

    @property
    def _conversation(self) -> Conversation:
        assert self._session is not None
        return self._session

    def _resume(self, last_seq: int, *, token: str | None = None) -> protocol.SessionCreated:
        """Ask for the session of a token, or one of other words."""
        resume = {"token": token or self._token, "last_seq": last_seq}
        return self.run(
            self._connection.create(
                ["green"], policy=self._policy, scorer="frame", events=NO_EVENTS, resume=resume
            )
        )

    def _next(self, step_ms: int, skip: int) -> tuple[int, int]:
        seq, timestamp_ms = self._conversation.last or (-1, 0)
        return seq + skip, timestamp_ms + step_ms

    def _send_image(
        self, image: bytes, colour: str, answer: Answer, *, step_ms: int = 250, skip: int = 1
    ) -> None:
        seq, timestamp_ms = self._next(step_ms, skip)
        self._conversation.sends_frame(seq, timestamp_ms, colour, answer)
        self._send(protocol.pack_frame(seq, timestamp_ms, image))

    def _send(self, message: protocol.Message | dict[str, object] | str | bytes) -> bool:
        """Send; a server that has ended the session must have had its reason."""
        if not self._over:
            try:
                self.run(self._connection.send(message))
            except ConnectionClosed:
                self._end_badly()
        return not self._over

    def _end_badly(self) -> None:
        """Read to the end of a session that had eight bad messages in a row."""
        self._over = True
        rest = self.run(self._connection.rest())
        fatal = [m for m in rest if isinstance(m, protocol.Error) and m.fatal]
        assert len(fatal) == 1, rest
        for message in rest[: rest.index(fatal[0])]:
            self._conversation.takes(message)
        self._ends_badly(fatal[0], rest[rest.index(fatal[0]) + 1 :])

    def _ends_badly(self, fatal: protocol.Error, rest: Sequence[protocol.ServerMessage]) -> None:
        """Assert that a session may end so; what was under way may still be answered."""
        self._over = True
        assert fatal.code == "too_many_bad_frames"
        assert self._conversation.ending
        for message in rest:
            self._conversation.takes(message)
        close = self._connection.socket.protocol.close_rcvd
        assert close is not None
        assert (close.code, close.reason) == (protocol.CLOSE_PROTOCOL, "bad frames")

    def _begins(self, conversation: Conversation, created: protocol.SessionCreated) -> None:
        self._session, self._token = conversation, created.resume_token
        self._place, self._over = "session", False

    def _forget(self) -> None:
        self._client = None
        self._session = None
        self._place = "outside"


@pytest.mark.parametrize("policy", ["lossless", "realtime"])
def test_any_conversation_is_answered_as_the_contract_says(
    policy: protocol.Policy, detector: Detector
) -> None:
    with asyncio.Runner() as runner, contextlib.ExitStack() as exits:
        serving_here = serving(detector, resume_s=RESUME_S)
        server = runner.run(_enter(serving_here))
        exits.callback(lambda: runner.run(serving_here.__aexit__(None, None, None)))

        class Machine(ProtocolMachine):
            def __init__(self) -> None:
                super().__init__(runner, server, policy)

        run_state_machine_as_test(Machine, settings=_effort())


async def _enter(context: contextlib.AbstractAsyncContextManager[Server]) -> Server:
    return await context.__aenter__()


def _effort() -> settings:
    return settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        deadline=None,
        phases=[Phase.generate],  # a shorter example is worth less than the minutes it takes
        database=None,
        derandomize="FUZZ_EXAMPLES" not in os.environ,
        suppress_health_check=list(HealthCheck),
    )
