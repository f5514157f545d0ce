"""Vocabularies that an encoder replica keeps, the latest used ones. Knows no Ray.

A replica that forgets some, or has just started, asks for them: the ingress has the vectors.
"""

from collections import OrderedDict

from ovoad_server.engine.interface import Vocabulary


class WordsCache:
    """Embedded words by key, as many as `most_bytes` of vectors allow, at least one."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._kept: OrderedDict[str, tuple[Vocabulary, int]] = OrderedDict()

    def __len__(self) -> int:
        """Return how many vocabularies are kept."""
        return len(self._kept)

    def get(self, key: str) -> Vocabulary | None:
        """Return the words of a key, None where they are not kept."""
        found = self._kept.get(key)
        if found is None:
            return None
        self._kept.move_to_end(key)
        return found[0]

    def put(self, key: str, words: Vocabulary, size: int) -> None:
        """Keep words whose vectors take `size` bytes; others may have to go."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return
        self._kept[key] = (words, size)
        self._bytes += size
        while self._bytes > self._most_bytes and len(self._kept) > 1:
            _, (_, freed) = self._kept.popitem(last=False)
            self._bytes -= freed
