"""What a session has to say: messages not sent yet, and those sent lately, should they be lost.

A broken connection may have swallowed what was sent last, so a client that resumes gets again what
was made after the last answer it saw. Knows no connection.
"""

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Final

KEPT_CHARACTERS: Final = 64 * 1024  # of messages sent; a few times what sockets hold unseen
KEPT_ANSWERS: Final = 16  # even where these are longer
KEPT_MESSAGES: Final = 1024  # however short they are
MOST_CHARACTERS: Final = 16 * 64 * 1024  # kept, and waiting, whatever they are
WAITING_MESSAGES: Final = 256
_NO_ANSWER: Final = -1  # stands for the seq of what answers no frame
_NOTHING: Final = -2


@dataclass(frozen=True, slots=True)
class _Entry:
    """A message as text; seq is that of the frame it answers, if it answers one."""

    text: str
    seq: int | None


class Outbox:
    """Messages in the order in which they were made.

    Only a bounded part of what was sent is kept: the last 64 Ki characters, and 16 answers at
    least; never more than 1024 messages or 1 Mi characters.
    """

    def __init__(self) -> None:
        self.changed = asyncio.Event()  # a message was made or sent
        self._unsent: deque[_Entry] = deque()
        self._unsent_characters = 0
        self._kept: deque[_Entry] = deque()
        self._kept_characters = 0
        self._kept_answers = 0
        self._forgotten = _NOTHING  # the highest seq whose answer is kept no more
        self._arrived = asyncio.Event()
        self._sending = False

    @property
    def settled(self) -> bool:
        """Whether everything that was said has left."""
        return not self._unsent and not self._sending

    @property
    def full(self) -> bool:
        """Whether more waits to be sent than should: nothing more is to be said for a while."""
        return len(self) > WAITING_MESSAGES or self._unsent_characters > MOST_CHARACTERS

    def __len__(self) -> int:
        """Return how many messages wait to be sent."""
        return len(self._unsent)

    def put(self, text: str, *, seq: int | None = None) -> None:
        """Add a message."""
        self._unsent.append(_Entry(text, seq))
        self._unsent_characters += len(text)
        self._arrived.set()
        self.changed.set()

    async def get(self) -> str:
        """Wait for the next message to send; from now on it is among the kept ones."""
        while not self._unsent:
            self._arrived.clear()
            await self._arrived.wait()
        entry = self._unsent.popleft()
        self._unsent_characters -= len(entry.text)
        self._sending = True
        self._keep(entry)
        return entry.text

    def sent(self) -> None:
        """Tell who waits that the message from `get` has left."""
        self._sending = False
        self.changed.set()

    def rewind(self, last_seq: int | None) -> bool:
        """Put what was made after the answer to frame `last_seq` back in line.

        None means that no answer was seen. False, and nothing is changed, where some of it is kept
        no more.
        """
        last = _NO_ANSWER if last_seq is None else last_seq
        if self._forgotten >= last:
            return False
        kept = list(self._kept)
        seen = [each.seq is not None and each.seq <= last for each in kept]
        unseen = [row for row, each in enumerate(kept) if each.seq is not None and not seen[row]]
        first = min(unseen, default=len(kept))
        start = max((row + 1 for row in range(first) if seen[row]), default=0)
        again = [kept[row] for row in range(start, len(kept)) if not seen[row]]
        self._unsent.extendleft(reversed(again))
        self._unsent_characters += sum(len(each.text) for each in again)
        self._kept.clear()
        self._kept_characters = self._kept_answers = 0
        self._sending = False
        self._arrived.set()
        return True

    def _keep(self, entry: _Entry) -> None:
        self._kept.append(entry)
        self._kept_characters += len(entry.text)
        self._kept_answers += entry.seq is not None
        while self._keeps_too_much():
            oldest = self._kept.popleft()
            self._kept_characters -= len(oldest.text)
            self._kept_answers -= oldest.seq is not None
            seq = _NO_ANSWER if oldest.seq is None else oldest.seq
            self._forgotten = max(self._forgotten, seq)

    def _keeps_too_much(self) -> bool:
        if self._kept_characters > MOST_CHARACTERS or len(self._kept) > KEPT_MESSAGES:
            return True
        return self._kept_characters > KEPT_CHARACTERS and self._kept_answers > KEPT_ANSWERS
