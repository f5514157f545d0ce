"""Show several sessions as one live screen, a table for each. Knows no connection; needs rich."""

import time
from dataclasses import dataclass
from types import TracebackType
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from ovoad_client.board import Board
from ovoad_client.lines import describe_message
from ovoad_client.notices import StreamMessage
from ovoad_client.protocol import Event
from ovoad_client.table import render

REFRESH_S: Final = 0.125
ROWS_AROUND_LABELS: Final = 8  # of one table: title, heading, background, status
EVENTS_SHOWN: Final = 2  # of each source


@dataclass
class _Shown:
    """The newest of one source."""

    name: str
    duration_ms: float | None
    board: Board | None = None


class SharedScreen:
    """One live screen for the tables of all sources; it is drawn by whoever comes first."""

    def __init__(self, *, console: Console | None = None) -> None:
        self.console = console or Console()
        self._live = Live(console=self.console, auto_refresh=False, transient=False)
        self._shown: list[_Shown] = []
        self._drawn_s = 0.0

    def __enter__(self) -> "SharedScreen":
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.draw()
        self._live.stop()

    def view(self, name: str, *, duration_ms: float | None = None) -> "SharedView":
        """Return the view of one more source."""
        shown = _Shown(name, duration_ms)
        self._shown.append(shown)
        return SharedView(self, shown)

    def refresh(self) -> None:
        """Draw all tables unless they were drawn just now."""
        if time.monotonic() - self._drawn_s >= REFRESH_S:
            self.draw()

    def draw(self) -> None:
        """Draw all tables."""
        self._drawn_s = time.monotonic()
        self._live.update(self.render(), refresh=True)

    def render(self) -> RenderableType:
        """Return all tables, sharing the terminal's height."""
        rows = self.console.size.height // max(1, len(self._shown)) - ROWS_AROUND_LABELS
        parts: list[RenderableType] = []
        for shown in self._shown:
            if shown.board is None:
                parts.append(Text(f"{shown.name}: no frame yet"))
                continue
            parts.append(
                render(
                    shown.board,
                    duration_ms=shown.duration_ms,
                    most_labels=max(1, rows - EVENTS_SHOWN),
                    name=shown.name,
                    most_events=EVENTS_SHOWN,
                )
            )
        return Group(*parts)


class SharedView:
    """What shows one source on the shared screen."""

    def __init__(self, screen: SharedScreen, shown: _Shown) -> None:
        self._screen = screen
        self._shown = shown

    def __enter__(self) -> "SharedView":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._screen.refresh()

    def refresh(self, board: Board) -> None:
        """Show the board in its place."""
        self._shown.board = board
        self._screen.refresh()

    def tell(self, message: StreamMessage) -> None:
        """Print errors and breaks above the tables; events are in them."""
        text = None if isinstance(message, Event) else describe_message(message)
        if text is not None:
            self.say(text)

    def say(self, text: str) -> None:
        """Print a line above the tables."""
        self._screen.console.print(Text(f"[{self._shown.name}] {text}"))
