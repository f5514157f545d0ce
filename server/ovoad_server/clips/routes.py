"""`POST /v1/clips`: from a request to its answer. Knows the parts, does the work of none."""

import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from ovoad_server.auth import origin_allowed
from ovoad_server.clips.answers import NDJSON, LinesAnswer, ObjectAnswer, Pieces, while_connected
from ovoad_server.clips.decoder import Decoder
from ovoad_server.clips.decoder_link import Opened, Task
from ovoad_server.clips.description import DESCRIPTION, RESPONSES
from ovoad_server.clips.refusals import ClipRefusedError, busy
from ovoad_server.clips.schema import ClipFacts, ClipOpened, ClipRequest
from ovoad_server.clips.scoring import ClipSession
from ovoad_server.clips.spool import Spool
from ovoad_server.clips.upload import Upload, receive_clip
from ovoad_server.hub import Hub
from ovoad_server.keys.checking import Caller
from ovoad_server.keys.file import ApiKey
from ovoad_server.refusals import RefusedError

log = logging.getLogger(__name__)


def add_clips(app: FastAPI, hub: Hub, *, guard: Callable[..., Awaitable[Caller]]) -> None:
    """Add the route; `guard` lets nobody pass who has no key, and tells who passes."""
    clips = Clips(hub)
    hub.metrics.clips.set_function(lambda: clips.under_way)
    hub.metrics.clip_bytes.set_function(lambda: clips.spool.used_bytes)
    app.state.clips = clips
    app.add_exception_handler(ClipRefusedError, _refuse)

    @app.post(
        "/v1/clips",
        tags=["clips"],
        response_model=None,
        openapi_extra=DESCRIPTION,
        responses=RESPONSES,
    )
    async def score_clip(request: Request, caller: Annotated[Caller, Depends(guard)]) -> Response:
        """Score a whole video: every sampled frame's prediction, and all events."""
        try:
            return await clips.answer(request, caller)
        except RefusedError as refusal:
            hub.metrics.rejected.labels(refusal.code).inc()
            raise ClipRefusedError.from_session(refusal) from refusal
        except ClipRefusedError as refusal:
            hub.metrics.rejected.labels(refusal.code).inc()
            raise
        except ClientDisconnect:
            log.info("a client left before its clip was answered")
            return Response(status_code=400)  # for nobody


class Clips:
    """The clips of one server: those under way, and the room for them on disk."""

    def __init__(self, hub: Hub) -> None:
        settings = hub.settings
        folder = settings.clip_spool or settings.cache / "clips"
        self.spool = Spool(folder, max_bytes=settings.clip_spool_bytes)
        self.under_way = 0
        self._hub = hub
        self._readers = ThreadPoolExecutor(2 * settings.max_clips, "ovoad-clip")

    async def answer(self, request: Request, caller: Caller) -> Response:
        """Receive, score, answer; raises RefusedError, ClipRefusedError and ClientDisconnect."""
        send_timeout_s = self._hub.settings.send_timeout_s
        async with contextlib.AsyncExitStack() as held:
            held.enter_context(self._place())
            self._check_visitor(request, caller)
            async with self._hub.before_drain():
                with self._hub.key_slots.opening(caller.key):
                    upload = await self._receive(request, held)
                    opened, session = await while_connected(
                        self._open(upload, caller, held), request.receive
                    )
            if NDJSON in request.headers.get("accept", ""):
                return LinesAnswer(opened, session, held.pop_all(), send_timeout_s=send_timeout_s)
            pieces = await Pieces.open(self.spool, held)
            await while_connected(pieces.gather(opened, session), request.receive)
            session.leave()
            return ObjectAnswer(pieces, held.pop_all(), send_timeout_s=send_timeout_s)

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        """Bound how many clips are under way, whatever they are about."""
        most = self._hub.settings.max_clips
        if self.under_way >= most:
            raise busy(
                f"found {self.under_way} clips under way, expected fewer than {most}; "
                "try again later",
                status=429,
            )
        self.under_way += 1
        try:
            yield
        finally:
            self.under_way -= 1

    def _check_visitor(self, request: Request, caller: Caller) -> None:
        """Refuse foreign pages, and everybody while no slot could be had, before the body."""
        hub, settings = self._hub, self._hub.settings
        if not origin_allowed(request.headers, settings.allowed_origins, bound=settings.host):
            raise ClipRefusedError(
                403,
                "origin",
                "found a page of another origin, expected one of OVOAD_ALLOWED_ORIGINS",
            )
        full = hub.slots.used >= hub.slots.total
        if full and not any(session.gives_way for session in hub.sessions.values()):
            raise hub.slots.refusal()
        hub.check_slot_of_key(caller.key)

    async def _receive(self, request: Request, held: contextlib.AsyncExitStack) -> Upload:
        settings = self._hub.settings
        return await receive_clip(
            request,
            self.spool,
            held,
            max_bytes=settings.max_clip_bytes,
            idle_timeout_s=settings.idle_timeout_s,
        )

    async def _open(
        self, upload: Upload, caller: Caller, held: contextlib.AsyncExitStack
    ) -> tuple[ClipOpened, ClipSession]:
        """Take a slot, embed the words, see the first frame; then the session holds it all."""
        hub, request = self._hub, upload.request
        hub.check_vocabulary(request.vocabulary, key=caller.key)
        scorer = hub.choose_scorer(request.scorer)
        fps = _sampled_fps(request, caller.key, usual=hub.facts.fps)
        with contextlib.ExitStack() as opening:
            hub.take_slot_of_another()
            opening.callback(hub.slots.give_back)
            hub.take_slot_of_key(caller.key)
            opening.callback(hub.key_slots.give, caller.key)
            vocabulary = await hub.embed(request.vocabulary, scorer)
            decoder = await self._start_decoder(upload, fps)
            opening.callback(decoder.end)
            facts = await decoder.read()
            assert isinstance(facts, Opened), "a decoder says first what it found"
            hub.key_check.check(caller)  # it may have been revoked meanwhile
            session = ClipSession(hub, request, vocabulary, decoder, facts, caller)
            opening.pop_all()  # the session's own now
        held.callback(session.leave)
        opened = ClipOpened(
            clip=_facts(upload, facts),
            model=hub.model(scorer),
            labels=list(vocabulary.labels),
            fps=fps,
            window=hub.window,
            warnings=list(vocabulary.warnings),
        )
        return opened, session

    async def _start_decoder(self, upload: Upload, fps: float) -> Decoder:
        settings = self._hub.settings
        task = Task(
            descriptor=upload.file.descriptor,
            container=upload.container,
            fps=fps,
            threads=settings.decode_threads,
            max_pixels=settings.max_pixels,
            least_side=self._hub.facts.least_side,
            max_frames=settings.max_clip_frames,
            max_duration_s=settings.max_clip_s,
        )
        return await Decoder.start(task, self._readers)


def _sampled_fps(request: ClipRequest, key: ApiKey | None, *, usual: float) -> float:
    """Return the frames to score of a second of video, within the key's limit."""
    most = None if key is None else key.fps
    if most is None:
        return request.fps or usual
    if request.fps is not None and request.fps > most:
        raise ClipRefusedError(
            422,
            "bad_request",
            f"fps: found {request.fps:g}, expected at most {most:g}, the limit of this key",
        )
    return request.fps or min(usual, most)


def _facts(upload: Upload, opened: Opened) -> ClipFacts:
    return ClipFacts(
        name=upload.name,
        bytes=upload.file.size,
        width=opened.width,
        height=opened.height,
        fps=opened.fps,
        duration_ms=opened.duration_ms,
        frame_count=opened.frame_count,
    )


async def _refuse(request: Request, refusal: Exception) -> Response:
    """Return a refusal in the one shape of errors."""
    assert isinstance(refusal, ClipRefusedError)
    error: dict[str, Any] = {"code": refusal.code, "message": str(refusal)}
    headers = {}
    if refusal.retry_after_ms is not None:
        error["retry_after_ms"] = refusal.retry_after_ms
        headers["Retry-After"] = str(refusal.retry_after_s)
    if refusal.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse({"error": error}, refusal.status, headers)
