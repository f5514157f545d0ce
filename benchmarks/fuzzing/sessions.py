"""Plays of whole sessions: a mix of sound, strange and broken messages, and what must come back.

Every frame whose header can be read is answered at most once, and in a session that ends in order
exactly once; so is every other message. The oracle is docs/protocol.md.
"""

import asyncio
import base64
import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from tests.server.mutations import mutate, mutate_json, mutate_text

from fuzzing.ledger import Ledger
from fuzzing.pictures import Pictures
from fuzzing.raw_socket import BINARY, CLOSE, PING, PONG, TEXT, WAIT_S, Header, RawSocket, frame
from fuzzing.target import KEY, Target
from ovoad_client import protocol

LABELS: Final = ("riding a bicycle", "crossing the street", "drinking coffee", "a man asleep")
KEY_HEADER: Final[Header] = (b"Authorization", f"Bearer {KEY}".encode())
MOST_LABELS: Final = 200  # as the target is set
LARGEST_FRAME: Final = 256 * 1024
CLOSE_CODES: Final = frozenset({1000, 1002, 1007, 1008, 1009, 1012, 1013, 4401})
BAD_BEFORE_A_GOOD_ONE: Final = 6


@dataclass
class Owed:
    """What the server owes for what was sent, and what it gave."""

    frames: Counter[int] = field(default_factory=Counter)
    answered: Counter[int] = field(default_factory=Counter)
    headless: int = 0  # frames that show no seq
    refused: int = 0  # other messages that are bad
    errors: int = 0  # that name no seq
    pings: Counter[str | None] = field(default_factory=Counter)
    pongs: Counter[str | None] = field(default_factory=Counter)
    resets: int = 0
    were_reset: int = 0
    updates: int = 0
    updated: int = 0
    control_pings: int = 0
    control_pongs: int = 0
    predicted: int = 0
    closed: protocol.SessionClosed | None = None


class SessionPlay:
    """One session from handshake to end; `number` seeds it."""

    def __init__(
        self, target: Target, ledger: Ledger, pictures: Pictures, *, number: int, seed: int
    ) -> None:
        self._target = target
        self._ledger = ledger
        self._pictures = pictures
        self._number = number
        self._choice = random.Random(f"{seed} {number}")
        self._owed = Owed()
        self._seq = self._choice.choice((0, 0, 1, 1000, 2**32 - 200))
        self._timestamp_ms = self._choice.choice((0, 0, -(2**63), 10**12, 2**63 - 10**5))
        self._bad_since_good = 0
        self._careful = self._choice.random() < 0.9  # sends good frames between the bad ones
        self._answers = asyncio.Event()
        self._over = False
        self._socket: RawSocket

    async def run(self) -> None:
        """Play the session and compare what came with what was owed."""
        self._socket = await RawSocket.open(self._target.host, self._target.port)
        try:
            status = await self._socket.upgrade((KEY_HEADER,))
            if status != 101:
                self._find(f"a good handshake was answered {status}")
                return
            await self._talk()
        finally:
            await self._socket.close()

    async def _talk(self) -> None:
        reading = asyncio.create_task(self._read())
        try:
            await self._text("session.create", self._create())
            for _ in range(self._choice.randrange(10, 120)):
                if self._seq >= protocol.MAX_SEQ or self._timestamp_ms >= 2**63 - 1:
                    break  # no later frame is left
                await self._act()
                if self._careful and self._bad_since_good >= BAD_BEFORE_A_GOOD_ONE:
                    await self._good_frame_answered()
            in_order = await self._leave()
            await reading
            self._compare(in_order)
        except ConnectionError:
            await reading
            self._compare(False)
        except TimeoutError:
            self._find(f"the server took or gave nothing for {WAIT_S:g} s")
        finally:
            reading.cancel()

    # ---- sending --------------------------------------------------------------------------------

    async def _act(self) -> None:
        acts: tuple[tuple[float, Callable[[], Any]], ...] = (
            (2, self._good_frame),
            (4, self._strange_frame),
            (22, self._mutated_frame),
            (5, self._text_frame),
            (10, self._bad_header),
            (26, self._mutated_text),
            (9, self._control_message),
            (12, self._control_frame),
            (3, self._late_frame),
            (0.02, self._oversized),
        )
        act = self._choice.choices([act for _, act in acts], [weight for weight, _ in acts])[0]
        await act()

    def _create(self) -> str:
        choice = self._choice
        events = {"enter": choice.choice((0.01, 0.5)), "exit": 0.005, "min_duration_ms": 0}
        message = {
            "type": "session.create",
            "vocabulary": {"labels": list(LABELS[: choice.randrange(1, 5)])},
            "policy": choice.choice(("realtime", "lossless")),
            "scorer": choice.choice((None, "frame", "average", "cluster")),
            "top_k": choice.choice((None, None, 1, 1000)),
            "events": choice.choice((None, events)),
            "resume": choice.choice((None, None, {"token": "unknown", "last_seq": 3})),
        }
        return json.dumps({name: value for name, value in message.items() if value is not None})

    async def _frame(self, kind: str, image: bytes) -> None:
        self._seq = min(self._seq + self._choice.choice((1, 1, 1, 7)), 2**32 - 1)
        step_ms = self._choice.choice((1, 40, 250, 250, 3000))
        self._timestamp_ms = min(self._timestamp_ms + step_ms, 2**63 - 1)
        await self._binary(kind, protocol.pack_frame(self._seq, self._timestamp_ms, image))

    async def _good_frame(self) -> None:
        await self._frame("frame, sound", self._choice.choice(self._pictures.sound))

    async def _strange_frame(self) -> None:
        await self._frame("frame, corpus", self._pictures.strange(self._choice))
        self._bad_since_good += 1

    async def _mutated_frame(self) -> None:
        await self._frame("frame, mutated picture", self._pictures.mutated(self._choice))
        self._bad_since_good += 1

    async def _late_frame(self) -> None:
        seq = self._choice.choice((0, max(self._seq - 1, 0), self._seq))
        late = protocol.pack_frame(seq, -(2**63), self._choice.choice(self._pictures.sound))
        await self._binary("frame, out of order", late)
        self._bad_since_good += 1

    async def _bad_header(self) -> None:
        good = protocol.pack_frame(self._seq + 1 & 0xFFFFFFFF, 0, self._pictures.sound[0])
        data = mutate(good[: protocol.FRAME_HEADER.size], self._choice)
        if self._choice.random() < 0.5:
            data += good[protocol.FRAME_HEADER.size :]
        await self._binary("frame, mutated header", data)
        self._bad_since_good += 1

    async def _text_frame(self) -> None:
        choice = self._choice
        self._seq, self._timestamp_ms = self._seq + 1, self._timestamp_ms + 250
        image = base64.b64encode(choice.choice(self._pictures.sound)).decode()
        if choice.random() < 0.6:
            image = mutate_text(image, choice)
            self._bad_since_good += 1
        message = {"type": "frame", "seq": self._seq, "timestamp_ms": self._timestamp_ms}
        await self._text("frame, base64", json.dumps({**message, "image_base64": image}))

    def _message(self) -> dict[str, Any]:
        choice = self._choice
        words = {"labels": choice.sample(LABELS, 2), "templates": ["{}"], "background": ["a wall"]}
        messages: tuple[dict[str, Any], ...] = (
            {"type": "ping", "nonce": "a"},
            {"type": "vocabulary.update", "vocabulary": words},
            {"type": "session.reset"},
            {"type": "frame", "seq": self._seq + 1, "timestamp_ms": 5, "image_base64": "AAAA"},
            json.loads(self._create()),
        )
        return choice.choice(messages)

    async def _control_message(self) -> None:
        message = self._message()
        self._bad_since_good += message["type"] in ("session.create", "frame")
        await self._text(f"{message['type']}, sound", json.dumps(message))

    async def _mutated_text(self) -> None:
        message, choice = self._message(), self._choice
        if choice.random() < 0.6:
            text = mutate_json(message, choice)
        else:
            text = mutate_text(json.dumps(message), choice)
        self._bad_since_good += 1
        await self._text(f"{message['type']}, mutated", text)

    async def _control_frame(self) -> None:
        choice = self._choice
        opcode = choice.choice((PING, PONG))
        if opcode == PING:
            self._owed.control_pings += 1
        self._ledger.note("WebSocket ping or pong")
        await self._socket.send(frame(opcode, choice.randbytes(choice.choice((0, 1, 125)))))

    async def _oversized(self) -> None:
        """Send more than a frame may have; above the socket's limit nothing is even read."""
        self._ledger.note("message, oversized")
        size, opcode = self._choice.choice((LARGEST_FRAME + 17, LARGEST_FRAME * 4)), BINARY
        if self._choice.random() < 0.5:
            opcode = TEXT
            self._owed.refused += 1
        await self._socket.send(frame(opcode, b" " * size))

    async def _good_frame_answered(self) -> None:
        """Send a good frame and wait for its answer, so that the bad before it are past."""
        owed = self._owed
        await self._good_frame()
        seq = self._seq
        async with asyncio.timeout(WAIT_S):
            while owed.answered[seq] < owed.frames[seq] and not self._over:
                self._answers.clear()
                await self._answers.wait()
        self._bad_since_good = 0

    async def _binary(self, kind: str, data: bytes) -> None:
        try:
            sent = protocol.unpack_frame(data)
        except protocol.ProtocolError:
            self._owed.headless += 1
        else:
            self._owe_frame(sent.seq, sent.timestamp_ms)
        await self._whole(kind, BINARY, data)

    async def _text(self, kind: str, text: str) -> None:
        data = text.encode("utf-8", "replace")
        self._owe_for(data.decode())
        await self._whole(kind, TEXT, data)

    async def _whole(self, kind: str, opcode: int, data: bytes) -> None:
        """Send a message, now and then in pieces with a control frame or nothing between them."""
        self._ledger.note(kind)
        pieces = [data]
        if self._choice.random() < 0.1:
            cuts = sorted(self._choice.randrange(len(data) + 1) for _ in range(3))
            pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        sent = b""
        for number, piece in enumerate(pieces):
            sent += frame(0 if number else opcode, piece, last=number == len(pieces) - 1)
            if len(pieces) > 1 and number == 1:
                self._owed.control_pings += 1
                sent += frame(PING, b"between")
        await self._socket.send(sent)

    def _owe_frame(self, seq: int, timestamp_ms: int) -> None:
        self._owed.frames[seq] += 1
        if seq > self._seq and timestamp_ms > self._timestamp_ms:  # later frames must be later yet
            self._seq, self._timestamp_ms = seq, timestamp_ms

    def _owe_for(self, text: str) -> None:
        owed = self._owed
        try:
            message = protocol.parse_client_message(text)
        except protocol.ProtocolError:
            owed.refused += 1
            return
        match message:
            case protocol.FrameMessage():
                self._owe_frame(message.seq, message.timestamp_ms)
            case protocol.Ping():
                owed.pings[message.nonce] += 1
            case protocol.SessionReset():
                owed.resets += 1
            case protocol.VocabularyUpdate():
                fits = len(message.vocabulary.labels) <= MOST_LABELS
                owed.updates += fits
                owed.refused += not fits
            case protocol.SessionCreate():
                owed.refused += 1  # but for the first, which `_compare` knows of
            case protocol.SessionClose():
                raise AssertionError("a mutation asked to close")

    async def _leave(self) -> bool:
        """End the session: in order (True), by a WebSocket close, or by a broken connection."""
        self._ledger.note("end of a session")
        way = self._choice.random()
        if way < 0.75:
            await self._socket.send(frame(TEXT, b'{"type":"session.close"}'))
            return True
        if way < 0.85:
            await self._socket.send(frame(CLOSE, b"\x03\xe8bye"))
            return False
        if way < 0.95:
            await self._socket.send(frame(BINARY, b"half a frame", claims=1000))
        self._socket.break_off()
        return False

    # ---- receiving ------------------------------------------------------------------------------

    async def _read(self) -> None:
        owed = self._owed
        while (received := await self._socket.receive()) is not None:
            opcode, payload = received
            if opcode == PONG:
                owed.control_pongs += 1
            if opcode == TEXT:
                message = self._ledger.read(self._number, payload.decode())
                if message is not None:
                    self._take(message)
            self._answers.set()
        self._ledger.ends[f"close {self._socket.close_code or 'without a close frame'}"] += 1
        self._over = True
        self._answers.set()

    def _take(self, message: protocol.ServerMessage) -> None:
        owed = self._owed
        match message:
            case protocol.Prediction() | protocol.FrameDropped():
                owed.answered[message.seq] += 1
                owed.predicted += message.type == "prediction"
            case protocol.Error(seq=int(seq)):
                owed.answered[seq] += 1
            case protocol.Error(fatal=False):
                owed.errors += 1
            case protocol.Pong():
                owed.pongs[message.nonce] += 1
            case protocol.SessionWasReset():
                owed.were_reset += 1
            case protocol.VocabularyUpdated():
                owed.updated += 1
            case protocol.SessionClosed():
                owed.closed = message

    def _compare(self, in_order: bool) -> None:
        """Write down where the answers do not add up."""
        owed, code = self._owed, self._socket.close_code
        if twice := owed.answered - owed.frames:
            self._find(f"frames answered that were not sent, or twice: {dict(twice)}")
        if code is not None and code not in CLOSE_CODES:
            self._find(f"close code {code}, expected one of the contract's")
        if code == protocol.CLOSE_NORMAL and in_order and owed.closed is None:
            self._find("closed normally without session.closed")
        if owed.closed is None or owed.closed.reason != "closed by client":
            return
        if lost := owed.frames - owed.answered:
            self._find(f"frames never answered in an orderly session: {dict(lost)}")
        refused = owed.refused - 1 + owed.headless  # less the first session.create
        for what, expected, found in (
            ("errors without seq", refused, owed.errors),
            ("pongs", owed.pings, owed.pongs),
            ("resets", owed.resets, owed.were_reset),
            ("vocabulary updates", owed.updates, owed.updated),
            ("WebSocket pongs", owed.control_pings, owed.control_pongs),
        ):
            if expected != found:
                self._find(f"{what}: expected {expected}, found {found}")
        self._compare_counts(owed.closed)

    def _compare_counts(self, closed: protocol.SessionClosed) -> None:
        owed = self._owed
        sent = owed.frames.total() + owed.headless
        dropped = closed.dropped.busy + closed.dropped.rate + closed.dropped.stale
        if closed.received != sent:
            self._find(f"session.closed tells {closed.received} frames, {sent} were sent")
        if closed.received != closed.predicted + dropped + closed.errors:
            self._find(f"the counts of session.closed do not add up: {closed}")
        if closed.predicted != owed.predicted:
            self._find(f"session.closed tells {closed.predicted} predictions")

    def _find(self, what: str) -> None:
        self._ledger.find(self._number, what)
