"""Cut a stream of bytes into the JPEG pictures in it. Knows no file and decodes nothing."""

from typing import Final

MAX_PICTURE_BYTES: Final = 32 * 1024 * 1024
_START: Final = b"\xff\xd8\xff"
_END_OF_IMAGE: Final = 0xD9
_START_OF_SCAN: Final = 0xDA
_ALONE: Final = (0x01, *range(0xD0, 0xD9))  # markers without a length: TEM, RST0-7, SOI


class JpegSplitter:
    """Takes bytes as they come and gives whole pictures; what lies between them is passed over.

    Segments are stepped over by their length, so a thumbnail inside a picture does not end it
    (ITU-T T.81, annex B). A picture of more than 32 MiB, or broken inside, is given up and the
    search goes on behind its start.
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self._scanned = 0  # where the search goes on: behind what is known to belong to the picture
        self._in_scan = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the pictures that these bytes complete."""
        self._data += data
        pictures: list[bytes] = []
        while self._find_start():
            end = self._find_end()
            if end is None:
                if len(self._data) <= MAX_PICTURE_BYTES:
                    break
                end = -1
            if end > 0:
                pictures.append(bytes(self._data[:end]))
            self._forget(max(end, len(_START)))
        return pictures

    def _find_start(self) -> bool:
        """Bring a picture's start to the front; False where there is none yet."""
        start = self._data.find(_START)
        if start < 0:
            self._forget(max(0, len(self._data) - len(_START) + 1))
            return False
        if start > 0:
            self._forget(start)
        return True

    def _find_end(self) -> int | None:
        """Return where the picture ends, None where it is not whole yet, -1 where it is broken."""
        data = self._data
        at = max(self._scanned, 2)
        while True:
            if self._in_scan:
                found = data.find(0xFF, at)
                if found < 0 or found + 1 >= len(data):
                    self._scanned = len(data) if found < 0 else found
                    return None
                if data[found + 1] == 0 or data[found + 1] in _ALONE:
                    at = found + 2
                    continue
                at, self._in_scan = found, False
            if at + 4 > len(data):
                self._scanned = at
                return at + 2 if data[at : at + 2] == b"\xff\xd9" else None
            if data[at] != 0xFF:
                return -1
            marker = data[at + 1]
            if marker == _END_OF_IMAGE:
                return at + 2
            if marker == 0xFF:  # fill byte
                at += 1
                continue
            if marker in _ALONE:
                at += 2
                continue
            at, self._in_scan = self._behind(at), marker == _START_OF_SCAN
            self._scanned = at

    def _behind(self, at: int) -> int:
        """Return where the segment at `at` ends, by its own length."""
        return at + 2 + int.from_bytes(self._data[at + 2 : at + 4])

    def _forget(self, count: int) -> None:
        del self._data[:count]
        self._scanned = 0
        self._in_scan = False
