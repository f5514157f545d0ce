"""Real video as JPEGs, encoded before anything is measured. Knows no server."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ovoad_client.demo import find_demo_video
from ovoad_client.errors import SourceError
from ovoad_client.sources import encode_jpeg, open_source

MAX_FRAMES: Final = 250  # ten seconds at 25 frames/s: about 15 MB in memory


def load_frames(
    video: str | None, *, max_side: int, max_frames: int = MAX_FRAMES
) -> tuple[bytes, ...]:
    """Return the first frames of a video as JPEGs; raises SourceError.

    None takes the video of `ovoad demo`. Sessions send them round and round.
    """
    source = open_source(video or str(find_demo_video()))
    try:
        jpegs: list[bytes] = []
        for _ in source.grab():
            image = source.retrieve()
            if image is not None:
                jpegs.append(encode_jpeg(image, max_side=max_side))
            if len(jpegs) == max_frames:
                break
    finally:
        source.close()
    if not jpegs:
        raise SourceError(f"cannot read video '{source.name}': no video frames found")
    return tuple(jpegs)


def write_frames(jpegs: Sequence[bytes], folder: Path) -> None:
    """Write JPEGs as 000.jpg, 001.jpg …, for a process that reads a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, jpeg in enumerate(jpegs):
        (folder / f"{number:03}.jpg").write_bytes(jpeg)
