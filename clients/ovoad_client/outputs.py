"""Write one session to several files at once, each in the format that its name's ending says."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Literal, Protocol

from ovoad_client.annotated_video import AnnotatedVideo, check_annotating
from ovoad_client.errors import ClientError, UsageError
from ovoad_client.notices import StreamMessage
from ovoad_client.protocol import SessionCreated
from ovoad_client.recording import Recording
from ovoad_client.text_outputs import EventsCsv, PredictionsCsv, Subtitles

Format = Literal["messages", "predictions", "events", "subtitles", "video"]
# The endings of names, the longer first where one ends in another.
ENDINGS: Final[tuple[tuple[str, Format], ...]] = (
    (".jsonl", "messages"),
    (".ndjson", "messages"),
    (".events.csv", "events"),
    (".csv", "predictions"),
    (".srt", "subtitles"),
    (".mp4", "video"),
)


class Output(Protocol):
    """A file that takes a session's frames before they are sent and its messages as they come."""

    def push_frame(self, seq: int, timestamp_ms: int, jpeg: bytes) -> None: ...
    def take(self, message: StreamMessage) -> None: ...
    def close(self) -> None: ...


class Outputs:
    """The files of one session.

    A file that cannot be written any further is given up; the session and the other files go on,
    and the reason is in `failures`.
    """

    def __init__(self, paths: Sequence[Path], created: SessionCreated) -> None:
        """Open all files; raises RecordingError or VideoError, with none left open."""
        self.failures: list[ClientError] = []
        self.notes: list[str] = []  # what a person should know of the files, once closed
        self._outputs: list[Output] = []
        self._videos: list[AnnotatedVideo] = []
        self._next_seq = created.next_seq or 0
        try:
            for path in paths:
                self._outputs.append(self._open(path, created))
        except ClientError:
            self._close_all()
            raise
        self.take(created)

    def push_frame(self, timestamp_ms: int, jpeg: bytes) -> None:
        """Take the frame that is sent next."""
        seq, self._next_seq = self._next_seq, self._next_seq + 1
        self._each(lambda output: output.push_frame(seq, timestamp_ms, jpeg))

    def take(self, message: StreamMessage) -> None:
        """Take a message that the stream told."""
        self._each(lambda output: output.take(message))

    async def wait_for_room(self) -> None:
        """Wait while a video is drawn slower than its frames come."""
        for video in self._videos:
            if video.crowded:
                await asyncio.to_thread(video.wait_for_room)

    async def close(self) -> None:
        """Write what is left and close every file."""
        await asyncio.to_thread(self._close_all)

    def _open(self, path: Path, created: SessionCreated) -> Output:
        match format_of(path):
            case "messages":
                return Recording(path)
            case "predictions":
                return PredictionsCsv(path, created)
            case "events":
                return EventsCsv(path, created)
            case "subtitles":
                return Subtitles(path, created)
            case "video":
                video = AnnotatedVideo(path, created)
                self._videos.append(video)
                return video

    def _each(self, work: Callable[[Output], None]) -> None:
        for output in list(self._outputs):
            try:
                work(output)
            except ClientError as error:
                self.failures.append(error)
                self._outputs.remove(output)
                with contextlib.suppress(ClientError):  # its reason is told already
                    output.close()

    def _close_all(self) -> None:
        outputs, self._outputs = self._outputs, []
        for output in outputs:
            try:
                output.close()
            except ClientError as error:
                self.failures.append(error)
        self.notes += [video.note for video in self._videos if video.note is not None]


def format_of(path: Path) -> Format:
    """Return what a file of this name holds; raises UsageError."""
    name = path.name.lower()
    for ending, format_ in ENDINGS:
        if name.endswith(ending):
            return format_
    endings = ", ".join(ending for ending, _ in ENDINGS)
    raise UsageError(f"found output '{path}', expected a name ending in {endings}")


def check_outputs(paths: Sequence[Path]) -> None:
    """Raise UsageError or MissingExtraError where a file cannot be written as it is named."""
    if len(set(paths)) != len(paths):
        raise UsageError("found the same output file twice, expected each once")
    if "video" in [format_of(path) for path in paths]:
        check_annotating()
