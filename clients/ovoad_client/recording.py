"""Write a session's server messages to a file, one JSON object a line, and read them back."""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from ovoad_client.errors import ClientError, os_reason
from ovoad_client.notices import FramesLost, Reconnected, Reconnecting, StreamMessage
from ovoad_client.protocol import ProtocolError, ServerMessage, parse_server_message


class RecordingError(ClientError):
    """A recording that cannot be written or read."""


class TextFile:
    """A UTF-8 file whose pieces are handed to the system at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # newline="": what is written has its line ends already.
            self._file = path.open("w", encoding="utf-8", newline="")
        except OSError as error:
            raise self._problem(error) from error

    def write(self, text: str) -> None:
        """Append text; raises RecordingError."""
        try:
            self._file.write(text)
            self._file.flush()
        except OSError as error:
            raise self._problem(error) from error

    def close(self) -> None:
        """Close the file; raises RecordingError."""
        try:
            self._file.close()
        except OSError as error:
            raise self._problem(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _problem(self, error: OSError) -> RecordingError:
        return RecordingError(f"cannot write '{self.path}': {os_reason(error)}")


class Recording(TextFile):
    """A file of messages as they came, one a line."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.lines = 0

    def write(self, text: str) -> None:
        """Append one message; line breaks inside it would break the format, JSON has none."""
        super().write(text.replace("\r", "").replace("\n", " ") + "\n")
        self.lines += 1

    def push_frame(self, seq: int, timestamp_ms: int, jpeg: bytes) -> None:
        """Frames themselves are not written."""

    def take(self, message: StreamMessage) -> None:
        """Append a message of the server; what the client tells of itself is not written."""
        if not isinstance(message, Reconnecting | Reconnected | FramesLost):
            self.write(message.to_json())


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
