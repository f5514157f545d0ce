"""What all connections of one server share: settings, engine, model facts, slots, sessions.

Knows no socket.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, Protocol

from ovoad_client import protocol
from ovoad_server.engine.engine import Engine
from ovoad_server.engine.events import ActionEvent
from ovoad_server.engine.interface import DetectorFacts, Vocabulary, WordsRequest
from ovoad_server.keys.checking import Caller, KeyCheck
from ovoad_server.keys.file import ApiKey
from ovoad_server.keys.keyring import Keyring, open_keyring
from ovoad_server.keys.slots import KeySlots
from ovoad_server.metrics import Metrics, ServerState
from ovoad_server.refusals import SHORTEST_RETRY_MS, RefusedError
from ovoad_server.settings import Settings
from ovoad_server.slots import Slots

SETTLE_S: Final = 30.0  # the longest wait for frames under way when a session ends
PROMPTS_PER_LABEL: Final = 10  # of the most labels allowed; bounds what one vocabulary can cost


class Resumable(Protocol):
    """A session as the hub sees it: it holds a slot until it ends, connected or not."""

    @property
    def token(self) -> str:
        """What a client shows to go on with it."""

    @property
    def connected(self) -> bool:
        """Whether a connection carries it."""

    @property
    def caller(self) -> Caller:
        """Who opened it."""

    @property
    def gives_way(self) -> bool:
        """Whether it is parked and its slot may go to a newcomer."""

    def close(self, reason: str) -> None:
        """Free what it holds."""

    def say_goodbye(self, time_left_ms: int) -> None:
        """Tell the client that the server will close."""

    def finish(self) -> None:
        """End in order, because the server does."""

    def revoke(self) -> None:
        """End soon, because its key is not valid any more."""


class EventWatcher(Protocol):
    """Hears of the words and events of all sessions, on the event loop; returns at once."""

    def take_labels(self, labels: Sequence[str]) -> None:
        """A session has these words from now on."""

    def take_event(self, session_id: str, event: ActionEvent) -> None:
        """An action began or ended; what began in a session ends in it, however that ends."""


class Hub:
    """Holds the parts, counts the slots, and checks what a client asks for against the limits."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        facts: DetectorFacts,
        metrics: Metrics,
        *,
        now_s: Callable[[], float] = time.monotonic,
        watcher: EventWatcher | None = None,
        keyring: Keyring | None = None,
    ) -> None:
        self.settings = settings
        self.engine = engine
        self.facts = facts
        self.metrics = metrics
        self.now_s = now_s
        self.watcher = watcher
        self.keyring = open_keyring(settings) if keyring is None else keyring
        self.key_check = KeyCheck(self.keyring, metrics)
        self.key_slots = KeySlots()
        self.slots = Slots(settings, engine, now_s=now_s)
        metrics.sessions_limit.set(settings.max_sessions)
        metrics.promised.set(settings.promised_fps)
        metrics.latency_budget.set(settings.latency_budget_ms / 1000)
        self.draining = False
        self.settle_s = SETTLE_S
        self._openings: set[asyncio.Timeout] = set()  # of connections without a session yet
        self.sessions: dict[str, Resumable] = {}  # by resume token

    # ---- what the server grants -----------------------------------------------------------------

    @property
    def limits(self) -> protocol.Limits:
        """What every session is granted where its key sets no limit of its own."""
        return self.limits_of(None)

    def limits_of(self, key: ApiKey | None) -> protocol.Limits:
        """What every session of a key is granted: the server's limits and the key's own."""
        settings = self.settings
        fps = None if key is None else key.fps
        labels = None if key is None else key.labels
        return protocol.Limits(
            max_frame_bytes=settings.max_frame_bytes,
            max_pixels=settings.max_pixels,
            max_labels=min(settings.max_labels, labels or settings.max_labels),
            max_inflight=settings.max_inflight,
            max_fps=min(settings.max_fps, fps or settings.max_fps),
            idle_timeout_ms=int(settings.idle_timeout_s * 1000),
            max_session_ms=int(settings.max_session_s * 1000),
        )

    @property
    def window(self) -> protocol.WindowShape:
        """The window's grid."""
        return protocol.WindowShape(
            fps=self.facts.fps, past=self.facts.past, neighbours=self.facts.neighbours
        )

    def model(self, scorer: protocol.ScorerName) -> protocol.ModelInfo:
        """What answers a session with this scorer."""
        return protocol.ModelInfo(
            encoder=self.facts.encoder, scorer=scorer, fingerprint=self.facts.fingerprint
        )

    def config(self, key: ApiKey | None = None) -> protocol.ServerConfig:
        """Return the answer of /v1/config: what a session of this key would be granted."""
        facts = self.facts
        return protocol.ServerConfig(
            model=self.model(facts.scorers[0]),
            scorers=list(facts.scorers),
            languages=list(facts.languages),
            templates=list(facts.templates),
            background=list(facts.background),
            limits=self.limits_of(key),
            window=self.window,
            events=protocol.EventSettings(),
        )

    # ---- sessions -------------------------------------------------------------------------------

    @property
    def parked(self) -> int:
        """Sessions whose connection broke and that can still be resumed."""
        return sum(not session.connected for session in self.sessions.values())

    def take_slot_of_another(self) -> None:
        """Take a slot, if need be by closing parked sessions that give way; raises RefusedError.

        More than one where there are fewer slots now than are used.
        """
        giving_way = [session for session in self.sessions.values() if session.gives_way]
        needed = self.slots.used - self.slots.total + 1
        if 0 < needed <= len(giving_way):
            for session in giving_way[:needed]:
                session.close("lost")
        self.slots.take(parked=0)

    def check_slot_of_key(self, key: ApiKey | None) -> None:
        """Raise RefusedError where the key has all its sessions and none of them gives way."""
        if key is not None and self.key_slots.full(key) and not self._giving_way(key):
            raise self.key_slots.refusal(key)

    def take_slot_of_key(self, key: ApiKey | None) -> None:
        """Take a session of the key's own, if need be by closing a parked one that gives way.

        Raises RefusedError.
        """
        if key is not None and self.key_slots.full(key):
            for session in self._giving_way(key)[:1]:
                session.close("lost")
        self.key_slots.take(key)

    def _giving_way(self, key: ApiKey) -> list[Resumable]:
        return [
            session
            for session in self.sessions.values()
            if session.gives_way and session.caller.key_name == key.name
        ]

    async def follow_keys(self) -> None:
        """Take over what changes in the keys file: who is revoked is told and ended."""
        await self.keyring.follow(
            changed=self._end_revoked, failed=self.metrics.keys_file_errors.inc
        )

    def _end_revoked(self) -> None:
        for session in list(self.sessions.values()):
            key = session.caller.key
            if key is not None and not self.keyring.holds(key):
                session.revoke()

    def state(self) -> ServerState:
        """Return what a scrape wants to know."""
        hits, misses = self.engine.worker.text_counts
        return ServerState(
            active=self.slots.used - self.parked,
            parked=self.parked,
            slots=self.slots.total,
            slots_used=self.slots.used,
            waiting=self.engine.waiting,
            capacity_fps=self.engine.capacity_fps if self.engine.cost.known else 0.0,
            batch_limit=self.engine.largest_batch,
            heartbeat_age_s=self.engine.worker.heartbeat_age_s,
            text_hits=hits,
            text_misses=misses,
        )

    @contextlib.asynccontextmanager
    async def before_drain(self) -> AsyncIterator[None]:
        """Bound how a session comes about: RefusedError once the server is about to stop."""
        if self.draining:
            raise _restarting()
        try:
            async with asyncio.timeout(None) as opening:
                self._openings.add(opening)
                try:
                    yield
                finally:
                    self._openings.discard(opening)
        except TimeoutError:
            if self.draining:
                raise _restarting() from None
            raise

    async def drain(self, *, serve_on_s: float, settle_s: float) -> None:
        """Let nobody in, tell all sessions, serve them on for a while, then end them.

        Frames under way are scored, those that time does not suffice for dropped. Returns when
        all sessions have ended, at the latest after serve_on_s + settle_s.
        """
        self.draining = True
        self.settle_s = 0.6 * settle_s
        self.key_check.wrong_keys.release()
        for opening in self._openings:
            opening.reschedule(asyncio.get_running_loop().time())
        for session in list(self.sessions.values()):
            if session.connected:
                session.say_goodbye(int(serve_on_s * 1000))
            else:
                session.finish()
        if not await self.slots.until_free(timeout_s=serve_on_s):
            self.finish_all()
            await self.slots.until_free(timeout_s=settle_s)

    def finish_all(self) -> None:
        """End every session in order, because the server ends."""
        for session in list(self.sessions.values()):
            session.finish()

    # ---- requests -------------------------------------------------------------------------------

    async def embed(self, vocabulary: protocol.Vocabulary, scorer: str) -> Vocabulary:
        """Embed a user's words for a scorer; raises what the model raises."""
        return await self.engine.embed(
            WordsRequest(
                tuple(vocabulary.labels),
                None if vocabulary.templates is None else tuple(vocabulary.templates),
                None if vocabulary.background is None else tuple(vocabulary.background),
                scorer,
            )
        )

    def choose_scorer(self, asked: protocol.ScorerName | None) -> protocol.ScorerName:
        """Return the scorer asked for, or the default; raises RefusedError for one not at hand."""
        if asked is None:
            return self.facts.scorers[0]
        if asked not in self.facts.scorers:
            raise RefusedError(
                "unknown_scorer",
                f"found scorer {asked}, expected one of {', '.join(self.facts.scorers)}",
            )
        return asked

    def check_vocabulary(
        self, vocabulary: protocol.Vocabulary, *, key: ApiKey | None = None
    ) -> None:
        """Raise RefusedError for more labels, or labels in templates, than allowed."""
        count = len(vocabulary.labels)
        prompts = count * len(vocabulary.templates or self.facts.templates)
        max_labels = self.limits_of(key).max_labels
        most = max_labels * PROMPTS_PER_LABEL
        if count > max_labels:
            raise RefusedError(
                "bad_vocabulary", f"found {count} labels, expected at most {max_labels}"
            )
        if prompts > most:
            raise RefusedError(
                "bad_vocabulary",
                f"found {prompts} prompts (labels times templates), expected at most {most}",
            )

    def new_id(self) -> str:
        """Return an unguessable identifier."""
        return secrets.token_urlsafe(12)


def _restarting() -> RefusedError:
    return RefusedError(
        "restarting",
        "the server is about to restart, expected new sessions afterwards",
        close_code=protocol.CLOSE_RESTART,
        retry_after_ms=SHORTEST_RETRY_MS,
    )
