"""Write a session as a video with its answers drawn in. Knows no connection; needs PyAV.

Each predicted frame is written when its prediction comes, at its own time: the frame rate varies
as the source's does. Frames with no prediction are not in it; where there are none for long, it
says so.
"""

import contextlib
import threading
from collections import deque
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ovoad_client.annotation import Annotator
from ovoad_client.board import label_probabilities
from ovoad_client.errors import ClientError, MissingExtraError
from ovoad_client.images import decode_image, import_cv2
from ovoad_client.notices import FramesLost, StreamMessage
from ovoad_client.protocol import Error, Event, FrameDropped, Prediction, SessionCreated

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CROWDED_FRAMES: Final = 32  # a sender that may wait does so
MOST_WAITING: Final = 256  # beyond, frames are left out
LEAST_GAP_MS: Final = 1000
_GAP_STEPS: Final = 4
_GAP_AFTER_MS: Final = 250  # how long the last picture before a gap is shown as it is
_TIME_BASE: Final = Fraction(1, 1000)
_CODEC: Final = "libx264"
_CODEC_OPTIONS: Final = {"preset": "veryfast", "crf": "23", "bf": "0", "g": "100", "threads": "2"}
# While it is written the file is in fragments, so that one that is cut off plays; at the end it
# becomes an ordinary one.
_CONTAINER_OPTIONS: Final = {
    "movflags": "hybrid_fragmented+frag_keyframe",
    "flush_packets": "1",
}
_CLOSE_S: Final = 300.0


class VideoError(ClientError):
    """A video that cannot be written."""


class AnnotatedVideo:
    """An MP4 that a thread draws and encodes, so that neither holds up the session."""

    def __init__(self, path: Path, created: SessionCreated) -> None:
        """Open the file; raises VideoError."""
        self.left_out = 0
        self._path = path
        self._pictures: dict[int, bytes] = {}  # by seq, of frames with no answer yet
        self._drawing = _Drawing(path, created)
        self._waiting: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._ending = False
        self._failure: ClientError | None = None
        self._thread = threading.Thread(target=self._run, name="ovoad video", daemon=True)
        self._thread.start()

    @property
    def crowded(self) -> bool:
        """Whether so many frames wait to be drawn that a sender should wait."""
        return len(self._waiting) >= CROWDED_FRAMES and self._failure is None

    @property
    def note(self) -> str | None:
        """What a person should know about the video."""
        if not self.left_out:
            return None
        return f"'{self._path}' lacks {self.left_out} frames: they came faster than they were drawn"

    def wait_for_room(self) -> None:
        """Wait until it is no longer crowded."""
        with self._changed:
            self._changed.wait_for(lambda: not self.crowded)

    def push_frame(self, seq: int, timestamp_ms: int, jpeg: bytes) -> None:
        """Keep a frame until its answer comes."""
        self._pictures[seq] = jpeg

    def take(self, message: StreamMessage) -> None:
        """Draw what a message says; raises VideoError where drawing has failed."""
        if self._failure is not None:
            raise self._failure
        drawing = self._drawing
        match message:
            case Prediction():
                self._take_prediction(message, self._pictures.pop(message.seq, None))
            case FrameDropped() | Error(seq=int()):
                assert message.seq is not None
                self._pictures.pop(message.seq, None)
            case FramesLost():
                for seq in message.seqs:
                    self._pictures.pop(seq, None)
            case Event():
                self._push(lambda: drawing.take_event(message))
            case SessionCreated(resumed=False):
                self._push(drawing.begin_again)
            case _:
                pass

    def close(self) -> None:
        """Draw what waits and finish the file; raises VideoError."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        self._thread.join(_CLOSE_S)
        if self._failure is not None:
            raise self._failure
        if self._thread.is_alive():
            raise VideoError(f"'{self._path}' was not finished within {_CLOSE_S:g} s")

    def _take_prediction(self, message: Prediction, jpeg: bytes | None) -> None:
        if jpeg is None:
            return
        if len(self._waiting) >= MOST_WAITING:
            self.left_out += 1
            return
        self._push(lambda: self._drawing.draw(message, jpeg))

    def _push(self, work: Callable[[], None]) -> None:
        with self._changed:
            self._waiting.append(work)
            self._changed.notify_all()

    # ---- in the thread -----------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while (work := self._next()) is not None:
                work()
            self._drawing.close()
        except Exception as error:  # told by take() and close(), in the caller's thread
            reason = error if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
            self._failure = VideoError(f"cannot write '{self._path}': {_described(reason)}")
            self._failure.__cause__ = error
            self._drawing.abandon()
        finally:
            with self._changed:
                self._changed.notify_all()

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ending)
            work = self._waiting.popleft() if self._waiting else None
            self._changed.notify_all()
            return work


class _Drawing:
    """Draws and encodes, in one thread."""

    def __init__(self, path: Path, created: SessionCreated) -> None:
        self._labels = created.labels
        self._container = _open_container(path)
        self._stream: Any = None
        self._annotator: Annotator | None = None
        self._last: tuple[int, NDArray[np.uint8]] | None = None
        self._step_ms: float | None = None  # the usual time between two frames
        self._active: dict[str, int] = {}

    def draw(self, message: Prediction, jpeg: bytes) -> None:
        """Write a predicted frame."""
        picture = decode_image(jpeg)
        if picture is None or (self._last is not None and message.timestamp_ms <= self._last[0]):
            return
        if self._annotator is None:
            self._annotator = self._begin(picture)
        self._bridge_gap(self._annotator, message.timestamp_ms)
        frame = self._annotator.draw(
            picture,
            message.timestamp_ms,
            label_probabilities(message, self._labels),
            message.background,
            warming_up=message.window.warming_up,
        )
        self._write(frame, message.timestamp_ms)
        self._last = (message.timestamp_ms, frame)

    def take_event(self, event: Event) -> None:
        """Show an event from here on, or no longer."""
        if event.kind == "end":
            self._active.pop(event.label, None)
        else:
            start_ms = event.timestamp_ms if event.start_ms is None else event.start_ms
            self._active[event.label] = start_ms
        if self._annotator is not None:
            self._annotator.show_events(self._active)

    def begin_again(self) -> None:
        """A fresh session knows of no event under way."""
        self._active.clear()
        if self._annotator is not None:
            self._annotator.show_events(self._active)

    def close(self) -> None:
        """Finish the file; a video without a frame is left empty."""
        if self._stream is not None:
            self._container.mux(self._stream.encode(None))
        self._container.close()

    def abandon(self) -> None:
        """Give the file back as it is."""
        with contextlib.suppress(Exception):  # the first failure is the one that is told
            self._container.close()

    def _begin(self, picture: "NDArray[np.uint8]") -> Annotator:
        height, width = picture.shape[:2]
        annotator = Annotator(self._labels, picture_size=(width, height))
        self._stream = self._container.add_stream(_CODEC, rate=25, options=_CODEC_OPTIONS)
        self._stream.width, self._stream.height = annotator.width, annotator.height
        self._stream.pix_fmt = "yuv420p"
        self._stream.time_base = self._stream.codec_context.time_base = _TIME_BASE
        annotator.show_events(self._active)
        return annotator

    def _bridge_gap(self, annotator: Annotator, timestamp_ms: int) -> None:
        """Say it in the picture where there was no prediction for long."""
        if self._last is None:
            return
        last_ms, frame = self._last
        gap_ms = timestamp_ms - last_ms
        if gap_ms > max(LEAST_GAP_MS, _GAP_STEPS * (self._step_ms or 0.0)):
            annotator.break_curves(timestamp_ms)
            self._write(annotator.draw_gap(frame, gap_ms), last_ms + _GAP_AFTER_MS)
        else:
            self._step_ms = gap_ms if self._step_ms is None else 0.9 * self._step_ms + 0.1 * gap_ms

    def _write(self, frame: "NDArray[np.uint8]", timestamp_ms: int) -> None:
        import av

        picture = av.VideoFrame.from_ndarray(frame, format="bgr24")
        picture.pts, picture.time_base = timestamp_ms, _TIME_BASE
        self._container.mux(self._stream.encode(picture))


def check_annotating() -> None:
    """Raise MissingExtraError where a video cannot be drawn."""
    what = "drawing the annotated video"
    import_cv2(what)
    try:
        import av  # noqa: F401
        import matplotlib  # noqa: F401
        import PIL  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError(what, module=error.name or "av", extra="mp4") from error


def _open_container(path: Path) -> Any:
    import av

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("wb").close()  # FFmpeg would open it as late as the first frame
        return av.open(str(path), "w", options=dict(_CONTAINER_OPTIONS))
    except (OSError, av.FFmpegError) as error:
        raise VideoError(f"cannot write '{path}': {_described(error)}") from error


def _described(error: object) -> str:
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return text.lower()
