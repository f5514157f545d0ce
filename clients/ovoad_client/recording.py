"""Write a session's server messages to a file, one JSON object a line, and read them back."""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from ovoad_client.errors import ClientError, os_reason
from ovoad_client.notices import FramesLost, Reconnected, Reconnecting, StreamMessage
from ovoad_client.protocol import ProtocolError, ServerMessage, parse_server_message


class RecordingError(ClientError):
    """A recording that cannot be written or read."""


class Recording:
    """A file of messages as they came; each line is handed to the system at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("w", encoding="utf-8", buffering=1)
        except OSError as error:
            raise RecordingError(f"cannot write '{path}': {os_reason(error)}") from error

    def write(self, text: str) -> None:
        """Append one message; line breaks inside it would break the format, JSON has none."""
        try:
            self._file.write(text.replace("\r", "").replace("\n", " ") + "\n")
        except OSError as error:
            raise RecordingError(f"cannot write '{self.path}': {os_reason(error)}") from error
        self.lines += 1

    def push_frame(self, seq: int, timestamp_ms: int, jpeg: bytes) -> None:
        """Frames themselves are not written."""

    def take(self, message: StreamMessage) -> None:
        """Append a message of the server; what the client tells of itself is not written."""
        if not isinstance(message, Reconnecting | Reconnected | FramesLost):
            self.write(message.to_json())

    def close(self) -> None:
        """Close the file; raises RecordingError."""
        try:
            self._file.close()
        except OSError as problem:
            raise RecordingError(f"cannot write '{self.path}': {os_reason(problem)}") from problem

    def __enter__(self) -> "Recording":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def read_recording(path: Path) -> Iterator[ServerMessage]:
    """Yield the messages of a recording; raises RecordingError, naming the line."""
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                try:
                    yield parse_server_message(line)
                except ProtocolError as error:
                    raise RecordingError(f"'{path}' line {number}: {error}") from error
    except OSError as error:
        raise RecordingError(f"cannot read '{path}': {os_reason(error)}") from error
