"""A clip as a session of the engine: frames go in as it has room, messages come out in order.

Knows the decoder's records and the wire's messages; no HTTP.
"""

import asyncio
import logging
from collections import deque
from dataclasses import dataclass
from typing import Final, Literal

from ovoad_client import protocol
from ovoad_server.clips.decoder import Decoded, Decoder, Position, Record
from ovoad_server.clips.decoder_link import Ended, Opened
from ovoad_server.clips.refusals import ClipRefusedError, key_revoked, restarting
from ovoad_server.clips.schema import ClipClosed, ClipProgress, ClipRequest
from ovoad_server.engine.events import ActionEvent, EventRule
from ovoad_server.engine.interface import Vocabulary
from ovoad_server.engine.replies import Failed, Reply, Scored
from ovoad_server.engine.session import Session, Words
from ovoad_server.hub import Hub
from ovoad_server.keys.audit import AuditEntry
from ovoad_server.keys.checking import ANYONE, KEY_REVOKED, Caller
from ovoad_server.wire import to_json

log = logging.getLogger(__name__)
INFLIGHT_BYTES: Final = 16 * 2**20  # of a clip's pixels in the engine: they share its pipe
LEAST_INFLIGHT: Final = 2
FAILED_IN_A_ROW: Final = 8
WHOLE: Final = 0.9  # of the header's frames or length; a file with less of both was cut short
Kind = Literal["prediction", "event", "error", "progress"]


@dataclass(frozen=True)
class Line:
    """One message of the answer as JSON text."""

    kind: Kind
    text: str


class ClipSession:
    """Holds a slot, which its caller took, from now until `close`; owns the decoder.

    The hub ends it as it ends any session. `take` is for one caller.
    """

    connected: Final = True
    gives_way: Final = False

    def __init__(
        self,
        hub: Hub,
        request: ClipRequest,
        vocabulary: Vocabulary,
        decoder: Decoder,
        opened: Opened,
        caller: Caller = ANYONE,
    ) -> None:
        events = request.events or protocol.EventSettings()
        self.token = hub.new_id()
        self.caller = caller
        self._hub = hub
        self._top_k = request.top_k
        self._decoder = decoder
        self._duration_ms = opened.duration_ms
        self._changed = asyncio.Event()
        self._lines: deque[Line] = deque()
        self._reading: asyncio.Task[Record] | None = None
        self._waiting: Decoded | None = None  # a frame that the engine has no room for yet
        self._ended: Ended | None = None
        self._refusal: ClipRefusedError | None = None
        self._seq = 0
        self._told = False  # all of it
        self._closed = False
        self._expires_s = hub.now_s() + hub.settings.max_session_s
        self._session = Session(
            self.token,
            policy="lossless",
            window=hub.engine.open_window(),
            words=Words(1, vocabulary),
            rule=EventRule(events.enter, events.exit, events.min_duration_ms),
            max_inflight=hub.settings.max_inflight,
            max_fps=hub.settings.max_fps,
            reply=self._take_reply,
        )
        model = hub.model(hub.choose_scorer(request.scorer))
        self._audit = AuditEntry("clip", self.token, model, "lossless")
        hub.engine.add(self._session)
        hub.sessions[self.token] = self
        hub.metrics.sessions.inc()

    # ---- what the hub wants ---------------------------------------------------------------------

    def close(self, reason: str) -> None:
        """Free everything that it holds, whichever way it ended; once."""
        if self._closed:
            return
        self._closed = True
        reading = self._reading
        if reading is not None and not reading.cancel() and not reading.cancelled():
            reading.exception()  # it had ended; seen
        self._decoder.end()
        self._hub.engine.remove(self._session)
        self._session.drop_waiting("stale")
        del self._hub.sessions[self.token]
        self._hub.slots.give()
        self._hub.key_slots.give(self.caller.key)
        self._hub.metrics.ended.labels(reason).inc()
        self._audit.write(self.caller, self._session.counts, reason)

    def leave(self) -> None:
        """Free everything; what is counted is how it ended: scored, refused or left alone."""
        if self._told:
            self.close("closed by client")
        elif self._refusal is None:
            self.close("lost")
        else:
            of_key = self._refusal.code == "unauthorised"  # it was good when the clip began
            self.close(KEY_REVOKED if of_key else self._refusal.code)

    def say_goodbye(self, time_left_ms: int) -> None:
        """Nothing to tell: it is scored on until `finish`."""

    def finish(self) -> None:
        """End because the server does."""
        self._refusal = self._refusal or restarting()
        self._changed.set()

    def revoke(self) -> None:
        """End at once, because its key is not valid any more."""
        self._refusal = self._refusal or key_revoked()
        self._changed.set()

    # ---- what the answer wants ------------------------------------------------------------------

    async def take(self) -> list[Line]:
        """Wait for the next lines, at least one; none at the end. Raises ClipRefusedError."""
        while True:
            self._changed.clear()
            self._advance()
            if self._lines:
                lines = list(self._lines)
                self._lines.clear()
                return lines
            if self._refusal is not None:
                raise self._refusal
            if self._over:
                self._told = True
                return []
            await self._wait()

    def closed(self) -> ClipClosed:
        """Return the last line."""
        assert self._ended is not None, "take() said that all is over"
        counts, ended = self._session.counts, self._ended
        expected = ended.expected
        complete = (
            expected is None
            or ended.frames >= WHOLE * expected
            or (self._duration_ms is not None and ended.last_ms >= WHOLE * self._duration_ms)
        )
        note = f"the file ends after {ended.frames} of {expected} frames: the rest cannot be read"
        return ClipClosed(
            frames=counts.received,
            predicted=counts.predicted,
            errors=counts.errors,
            complete=complete,
            warnings=[] if complete else [note],
        )

    # ---- one step after the other ---------------------------------------------------------------

    @property
    def _over(self) -> bool:
        return self._ended is not None and self._session.counts.unanswered == 0

    def _advance(self) -> None:
        """Do whatever can be done now: take a record, submit a frame, read on, end the events."""
        if self._refusal is not None:
            return
        self._take_record()
        if self._waiting is not None and self._has_room(len(self._waiting.image)):
            self._submit(self._waiting)
            self._waiting = None
        if self._reading is None and self._waiting is None and self._ended is None:
            self._reading = asyncio.create_task(self._decoder.read())
            self._reading.add_done_callback(lambda _: self._changed.set())
        if self._over:
            self._session.finish_events()

    def _take_record(self) -> None:
        if self._reading is None or not self._reading.done():
            return
        reading, self._reading = self._reading, None
        try:
            record = reading.result()
        except ClipRefusedError as refusal:
            self._refusal = refusal
            return
        match record:
            case Decoded() as frame:
                self._waiting = frame
            case Position() as position:
                self._tell(position.timestamp_ms)
            case Ended() as ended:
                self._ended = ended
            case Opened():
                raise AssertionError("a decoder opens its file once")

    def _has_room(self, size: int) -> bool:
        most = max(LEAST_INFLIGHT, INFLIGHT_BYTES // size)
        return self._session.has_room() and self._session.counts.unanswered < most

    def _submit(self, frame: Decoded) -> None:
        self._hub.metrics.received.inc()
        self._hub.engine.submit(self._session, self._seq, frame.timestamp_ms, frame.image)
        self._seq += 1

    def _tell(self, position_ms: int) -> None:
        length_ms = self._duration_ms
        share = min(1.0, position_ms / length_ms) if length_ms else None
        progress = ClipProgress(
            position_ms=position_ms,
            predicted=self._session.counts.predicted,
            share=None if share is None else round(share, 4),
        )
        self._lines.append(Line("progress", progress.to_json()))

    def _take_reply(self, reply: Reply) -> None:
        self._changed.set()
        self._hub.metrics.observe_reply(reply)
        if self._closed:
            return
        kind: Kind = "prediction" if isinstance(reply, Scored) else "error"
        if isinstance(reply, ActionEvent):
            kind = "event"
        self._lines.append(Line(kind, to_json(reply, top_k=self._top_k)))
        if isinstance(reply, Failed) and self._session.bad_in_a_row >= FAILED_IN_A_ROW:
            self._refusal = ClipRefusedError(
                503,
                "internal",
                f"{FAILED_IN_A_ROW} frames in a row failed, the last: {reply.message}",
                retry_after_ms=5000,
            )

    async def _wait(self) -> None:
        left_s = self._expires_s - self._hub.now_s()
        try:
            async with asyncio.timeout(left_s):
                await self._changed.wait()
        except TimeoutError:
            most_s = self._hub.settings.max_session_s
            message = f"scoring took more than {most_s:g} s, expected at most as much"
            self._refusal = ClipRefusedError(413, "clip_too_long", message)
            raise self._refusal from None
