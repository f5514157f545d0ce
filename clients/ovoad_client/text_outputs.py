"""Write a session as text files: probabilities as CSV, events as CSV or subtitles."""

import csv
import io
from pathlib import Path
from typing import Final

from ovoad_client.board import label_probabilities
from ovoad_client.notices import FramesLost, StreamMessage
from ovoad_client.protocol import Error, FrameDropped, Prediction, SessionCreated
from ovoad_client.recording import TextFile
from ovoad_client.spans import EventSpan, SpanKeeper

LEAST_CUE_MS: Final = 1  # a subtitle of no length is shown by no player


class PredictionsCsv:
    """A row for each frame's answer: its time, what became of it, the probability of each label.

    Frames with no prediction have their reason ("dropped busy") and empty probabilities, and so
    have labels that top_k leaves out.
    """

    def __init__(self, path: Path, created: SessionCreated) -> None:
        self._file = TextFile(path)
        self._labels = created.labels
        self._sent: dict[int, int] = {}  # seq -> timestamp_ms of frames with no answer yet
        labels = [spreadsheet_text(label) for label in self._labels]
        self._file.write(csv_row(["timestamp_ms", "seq", "answer", "background", *labels]))

    def push_frame(self, seq: int, timestamp_ms: int, jpeg: bytes) -> None:
        """Take note of a frame that is about to be sent; its picture is of no use here."""
        self._sent[seq] = timestamp_ms

    def take(self, message: StreamMessage) -> None:
        """Write the row of a frame's answer; raises RecordingError."""
        match message:
            case Prediction():
                known = label_probabilities(message, self._labels)
                values = [_number(known.get(label)) for label in self._labels]
                self._write(message.seq, "prediction", [_number(message.background), *values])
            case FrameDropped():
                self._write(message.seq, f"dropped {message.reason}", [])
            case Error(seq=int(seq)):
                self._write(seq, f"error {message.code}", [])
            case FramesLost():
                for seq in message.seqs:
                    self._write(seq, "lost", [])
            case _:
                pass

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, seq: int, answer: str, values: list[str]) -> None:
        timestamp_ms = self._sent.pop(seq, None)
        blanks = [""] * (1 + len(self._labels) - len(values))
        time = "" if timestamp_ms is None else str(timestamp_ms)
        self._file.write(csv_row([time, str(seq), answer, *values, *blanks]))


class EventsCsv:
    """A row for each event when it is over: label, start_ms, end_ms, highest probability."""

    def __init__(self, path: Path, created: SessionCreated) -> None:
        self._file = TextFile(path)
        self._spans = SpanKeeper(created)
        self._file.write(csv_row(["label", "start_ms", "end_ms", "probability"]))

    def push_frame(self, seq: int, timestamp_ms: int, jpeg: bytes) -> None:
        """Frames themselves are not written."""

    def take(self, message: StreamMessage) -> None:
        """Write the events that this message brings to their end; raises RecordingError."""
        self._write(self._spans.take(message))

    def close(self) -> None:
        """Write what is under way, ending at the last prediction, and close the file."""
        with self._file:
            self._write(self._spans.finish())

    def _write(self, spans: list[EventSpan]) -> None:
        for span in spans:
            label, probability = spreadsheet_text(span.label), _number(span.probability)
            self._file.write(csv_row([label, str(span.start_ms), str(span.end_ms), probability]))


class Subtitles:
    """SRT: each event is a subtitle from its start to its end, in the order of starts."""

    def __init__(self, path: Path, created: SessionCreated) -> None:
        self._file = TextFile(path)
        self._spans = SpanKeeper(created)
        self._number = 0

    def push_frame(self, seq: int, timestamp_ms: int, jpeg: bytes) -> None:
        """Frames themselves are not written."""

    def take(self, message: StreamMessage) -> None:
        """Write the events that this message brings to their end; raises RecordingError."""
        self._write(self._spans.take(message))

    def close(self) -> None:
        """Write what is under way, ending at the last prediction, and close the file."""
        with self._file:
            self._write(self._spans.finish())

    def _write(self, spans: list[EventSpan]) -> None:
        for span in spans:
            self._number += 1
            end_ms = max(span.end_ms, span.start_ms + LEAST_CUE_MS)
            text = " ".join(span.label.split()).replace("-->", "→")
            times = f"{srt_time(span.start_ms)} --> {srt_time(end_ms)}"
            self._file.write(f"{self._number}\n{times}\n{text}\n\n")


def srt_time(time_ms: int) -> str:
    """Return e.g. "00:01:02,345"."""
    seconds, ms = divmod(max(0, time_ms), 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02},{ms:03}"


def spreadsheet_text(text: str) -> str:
    """Keep spreadsheets from reading words as formulas."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def csv_row(cells: list[str]) -> str:
    """Return one line of RFC 4180, quoted where needed."""
    line = io.StringIO()
    csv.writer(line).writerow(cells)
    return line.getvalue()


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}".rstrip("0").rstrip(".")
