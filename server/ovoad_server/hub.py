"""What all connections of one server share: settings, engine, model facts, the slots.

Knows no socket.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from ovoad_client import protocol
from ovoad_server.engine.engine import Engine
from ovoad_server.metrics import Metrics
from ovoad_server.settings import Settings

PROMPTS_PER_LABEL = 10  # of the most labels allowed; bounds what one vocabulary can cost


@dataclass(frozen=True)
class ModelFacts:
    """What the server tells of its model."""

    encoder: str
    fingerprint: str
    scorers: tuple[protocol.ScorerName, ...]  # the default first
    languages: tuple[str, ...]
    templates: tuple[str, ...]
    background: tuple[str, ...]
    fps: float
    past: int
    neighbours: int
    text_counts: Callable[[], tuple[int, int]] = lambda: (0, 0)  # cache hits and misses so far


class RefusedError(Exception):
    """A reason to end a connection: the error that the client sees and the close code."""

    def __init__(
        self,
        code: protocol.ErrorCode,
        message: str,
        *,
        close_code: int = protocol.CLOSE_PROTOCOL,
        retry_after_ms: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code: protocol.ErrorCode = code
        self.close_code = close_code
        self.retry_after_ms = retry_after_ms

    def to_message(self) -> protocol.Error:
        """Return the fatal error that precedes the close."""
        return protocol.Error(
            code=self.code,
            message=str(self),
            fatal=True,
            transient=self.retry_after_ms is not None,
            retry_after_ms=self.retry_after_ms,
        )


class Hub:
    """Holds the parts, counts the slots, and checks what a client asks for against the limits."""

    def __init__(
        self, settings: Settings, engine: Engine, facts: ModelFacts, metrics: Metrics
    ) -> None:
        self.settings = settings
        self.engine = engine
        self.facts = facts
        self.metrics = metrics
        self._open = 0

    @property
    def limits(self) -> protocol.Limits:
        """What every session is granted."""
        settings = self.settings
        return protocol.Limits(
            max_frame_bytes=settings.max_frame_bytes,
            max_pixels=settings.max_pixels,
            max_labels=settings.max_labels,
            max_inflight=settings.max_inflight,
            max_fps=settings.max_fps,
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

    def config(self) -> protocol.ServerConfig:
        """Return the answer of /v1/config."""
        facts = self.facts
        return protocol.ServerConfig(
            model=self.model(facts.scorers[0]),
            scorers=list(facts.scorers),
            languages=list(facts.languages),
            templates=list(facts.templates),
            background=list(facts.background),
            limits=self.limits,
            window=self.window,
            events=protocol.EventSettings(),
        )

    def take_slot(self) -> None:
        """Take one of `max_sessions` slots; raises RefusedError when none is left."""
        if self._open >= self.settings.max_sessions:
            raise RefusedError(
                "capacity",
                f"found {self._open} sessions open, expected fewer than "
                f"{self.settings.max_sessions}; try again later",
                close_code=protocol.CLOSE_CAPACITY,
                retry_after_ms=1000,
            )
        self._open += 1
        self.metrics.sessions_active.set(self._open)

    def give_slot(self) -> None:
        """Give a slot back."""
        self._open -= 1
        self.metrics.sessions_active.set(self._open)

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

    def check_vocabulary(self, vocabulary: protocol.Vocabulary) -> None:
        """Raise RefusedError for more labels, or labels in templates, than allowed."""
        count = len(vocabulary.labels)
        prompts = count * len(vocabulary.templates or self.facts.templates)
        most = self.settings.max_labels * PROMPTS_PER_LABEL
        if count > self.settings.max_labels:
            raise RefusedError(
                "bad_vocabulary",
                f"found {count} labels, expected at most {self.settings.max_labels}",
            )
        if prompts > most:
            raise RefusedError(
                "bad_vocabulary",
                f"found {prompts} prompts (labels times templates), expected at most {most}",
            )

    def new_id(self) -> str:
        """Return an unguessable identifier."""
        return secrets.token_urlsafe(12)
