"""What a file's first bytes say it is. Knows no decoder.

Only these containers reach the decoder. FFmpeg also reads lists that name other files and
addresses (HLS, DASH, concat, SDP), with which an upload would make the server read those.
"""

from typing import Final

HEAD_BYTES: Final = 400  # three packets' starts of an MPEG transport stream
_BOXES: Final = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")
_ASF: Final = bytes.fromhex("3026b2758e66cf11")


def container_of(head: bytes) -> str | None:
    """Name the container of a file that begins with `head`; None for everything else."""
    if head[4:8] in _BOXES:
        return "MP4 or QuickTime"
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "Matroska or WebM"
    if head[:4] in (b"RIFF", b"RIFX") and head[8:12] in (b"AVI ", b"AVIX"):
        return "AVI"
    if head[:4] in (b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3"):
        return "MPEG"
    if len(head) > 376 and head[0] == head[188] == head[376] == 0x47:
        return "MPEG transport stream"
    starts = {b"FLV\x01": "FLV", b"OggS": "Ogg", _ASF: "ASF"}
    return next((name for start, name in starts.items() if head.startswith(start)), None)
