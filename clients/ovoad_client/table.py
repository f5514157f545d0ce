"""Show a session as a live table in a terminal. Knows no connection; needs rich."""

from types import TracebackType
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ovoad_client.board import (
    EVENTS_KEPT,
    Board,
    describe_event,
    describe_speed,
    describe_window,
)
from ovoad_client.counts import describe_drops
from ovoad_client.lines import describe_message, describe_position
from ovoad_client.notices import StreamMessage
from ovoad_client.protocol import Event

BAR_WIDTH: Final = 24
ROWS_AROUND_LABELS: Final = 16  # heading, background, status and events
_ACTIVE_STYLE: Final = "bold green"
_LABEL_STYLE: Final = "cyan"
_BACKGROUND_STYLE: Final = "grey62"


class TableView:
    """Draws the board several times a second over itself; other lines scroll above it."""

    def __init__(self, *, duration_ms: float | None = None, console: Console | None = None) -> None:
        self._duration_ms = duration_ms
        self._console = console or Console()
        self._live = Live(console=self._console, auto_refresh=False, transient=False)

    def __enter__(self) -> "TableView":
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def refresh(self, board: Board) -> None:
        """Draw the board."""
        rows = max(3, self._console.size.height - ROWS_AROUND_LABELS)
        drawn = render(board, duration_ms=self._duration_ms, most_labels=rows)
        self._live.update(drawn, refresh=True)

    def tell(self, message: StreamMessage) -> None:
        """Print errors and breaks above the table; events are in it."""
        text = None if isinstance(message, Event) else describe_message(message)
        if text is not None:
            self.say(text)

    def say(self, text: str) -> None:
        """Print a line above the table."""
        self._console.print(Text(text))


def render(
    board: Board,
    *,
    duration_ms: float | None = None,
    most_labels: int = 20,
    name: str | None = None,
    most_events: int = EVENTS_KEPT,
) -> RenderableType:
    """Return the board as something that rich draws; name: of one source among several."""
    parts: list[RenderableType] = [_label_table(board, most_labels, name)]
    hidden = len(board.labels) - most_labels
    if hidden > 0:
        parts.append(Text(f"{hidden} more labels, less likely now", style="dim"))
    if duration_ms:
        parts.append(_progress(board, duration_ms))
    parts.append(Text(_status(board, duration_ms)))
    parts.extend(
        Text(f"event {describe_event(event)}") for event in list(board.events)[-most_events:]
    )
    return Group(*parts)


def _label_table(board: Board, most_labels: int, name: str | None) -> Table:
    model = board.created.model
    about = f"{model.encoder} · {model.scorer} · {board.created.policy}"
    table = Table(
        title=Text(about if name is None else f"{name} · {about}"),
        title_justify="left",
        expand=False,
        pad_edge=False,
    )
    table.add_column("action", no_wrap=True, overflow="ellipsis", max_width=40)
    table.add_column("", width=BAR_WIDTH, no_wrap=True)
    table.add_column("p", justify="right", width=5)
    table.add_column("last 8 s", no_wrap=True)
    for label in board.ranked(most_labels):
        style = _ACTIVE_STYLE if label in board.active else _LABEL_STYLE
        _add_row(table, board, label, board.probabilities.get(label), style)
    table.add_section()
    shown = board.background if board.predicted else None
    _add_row(table, board, None, shown, _BACKGROUND_STYLE)
    return table


def _add_row(
    table: Table, board: Board, label: str | None, probability: float | None, style: str
) -> None:
    name = "(none of these)" if label is None else label
    if label is not None and label in board.active:
        name = f"● {label}"
    bar = ProgressBar(
        total=1.0,
        completed=probability or 0.0,
        width=BAR_WIDTH,
        complete_style=style,
        finished_style=style,
    )
    number = "–" if probability is None else f"{probability:.2f}"
    table.add_row(
        Text(name, style=style), bar, Text(number), Text(board.sparkline(label), style=style)
    )


def _progress(board: Board, duration_ms: float) -> Table:
    row = Table.grid(padding=(0, 1))
    done = min(board.timestamp_ms, duration_ms)
    row.add_row(Text("video"), ProgressBar(total=duration_ms, completed=done, width=BAR_WIDTH))
    return row


def _status(board: Board, duration_ms: float | None) -> str:
    rate, latency = describe_speed(board)
    lost = f" · lost: {board.lost}" if board.lost else ""
    text = (
        f"{describe_position(board.timestamp_ms, duration_ms)} · {rate} · "
        f"latency p50 {latency} · dropped: {describe_drops(board.dropped)}{lost}\n"
        f"window: {describe_window(board.window)}"
    )
    if board.reconnecting is not None:
        text += f"\nno connection, reconnecting (attempt {board.reconnecting.attempt})"
    return text
