"""Checks of frames: each way to send one, what its prediction holds, and every bad one."""

import base64
import functools
import math
from collections.abc import Mapping
from typing import Final

from ovoad_client import protocol
from ovoad_client.conformance.check import Check
from ovoad_client.conformance.findings import NotCheckedError, equal, expect
from ovoad_client.conformance.pictures import JPEG, NO_PICTURE, WEBP, png, vast_png
from ovoad_client.conformance.target import FRAME_MS, LABELS, Target

BAD_IN_A_ROW: Final = 8
LARGEST_UPLOAD: Final = 64 * 2**20  # bytes; more would be an attack, not a check
TOLERANCE: Final = 1e-3
PICTURES: Final[Mapping[str, bytes]] = {"jpeg": JPEG, "png": png(), "webp": WEBP}
_GOOD: Final = protocol.pack_frame(1, FRAME_MS, JPEG)
HEADERS: Final[Mapping[str, bytes]] = {
    "short": _GOOD[:10],
    "header_alone": _GOOD[:16],
    "magic": b"VO" + _GOOD[2:],
    "version": _GOOD[:2] + b"\x02" + _GOOD[3:],
    "flags": _GOOD[:3] + b"\x01" + _GOOD[4:],
}
PICTURES_THAT_ARE_NONE: Final[Mapping[str, bytes]] = {
    "text": NO_PICTURE,
    "truncated": JPEG[: len(JPEG) // 2],
}


async def _predicts(target: Target, *, image: bytes) -> None:
    async with target.session() as wire:
        await wire.frame(0, image)
        await wire.predicted(0)


async def _predicts_text_frames(target: Target) -> None:
    async with target.session() as wire:
        image = base64.b64encode(JPEG).decode()
        await wire.say(protocol.FrameMessage(seq=3, timestamp_ms=-40, image_base64=image))
        prediction = await wire.predicted(3)
        equal(prediction.timestamp_ms, -40, "timestamp_ms")


async def _tells_all_of_a_prediction(target: Target) -> None:
    async with target.session() as wire:
        await wire.frame(0)
        prediction = await wire.predicted(0)
    lists = (prediction.probabilities, prediction.similarities)
    equal([len(values or []) for values in lists], [len(LABELS)] * 2, "lists of lengths")
    equal(prediction.top, None, "top")
    total = sum(prediction.probabilities or []) + prediction.background
    expect(
        math.isclose(total, 1, abs_tol=TOLERANCE),
        f"probabilities and background that sum to {total:.4f}",
        f"1 within {TOLERANCE:g}",
    )
    expect(prediction.background > 0, "background 0", "a share for none of the labels")
    timing = prediction.timing_ms
    expect(timing.total >= timing.encode, f"timing {timing}", "a total above its stages")
    equal((prediction.vocabulary_version, prediction.backlog), (1, 0), "version and backlog")


async def _ranks(target: Target, *, top_k: int) -> None:
    async with target.session(top_k=top_k) as wire:
        await wire.frame(0)
        prediction = await wire.predicted(0)
    top = prediction.top or []
    equal(len(top), min(top_k, len(LABELS)), "labels in top")
    equal((prediction.probabilities, prediction.similarities), (None, None), "lists beside top")
    expect({ranked.label for ranked in top} <= set(LABELS), top, f"labels among {LABELS}")
    found = [ranked.probability for ranked in top]
    equal(found, sorted(found, reverse=True), "probabilities")


async def _fills_the_window(target: Target) -> None:
    async with target.session() as wire:
        shape = wire.created.window
        cell_ms, slots = round(1000 / shape.fps), shape.past + shape.neighbours
        cells = [0, 1, 6, slots]
        for seq, cell in enumerate(cells):
            await wire.frame(seq, timestamp_ms=cell * cell_ms)
            window = (await wire.predicted(seq)).window
            sent = cells[: seq + 1]
            filled = [cell for cell in sent if cell > sent[-1] - slots]
            expected = protocol.WindowState(
                frames=len(filled),
                span_ms=(sent[-1] - filled[0]) * cell_ms,
                gaps=min(sent[-1] + 1, slots) - len(filled),
                warming_up=sent[-1] + 1 < slots,
            )
            equal(window, expected, f"after {sent[-1] * cell_ms} ms a window")


async def _refuses_headers(target: Target, *, data: bytes) -> None:
    async with target.session() as wire:
        await wire.say(data)
        await wire.refused("bad_frame")
        await wire.frame(2)
        await wire.predicted(2)


async def _refuses_bad_base64(target: Target) -> None:
    async with target.session() as wire:
        await wire.say(protocol.FrameMessage(seq=4, timestamp_ms=0, image_base64="?!"))
        await wire.refused("bad_frame", seq=4)


async def _refuses_pictures(target: Target, *, image: bytes) -> None:
    async with target.session() as wire:
        await wire.frame(0, image)
        await wire.refused("bad_image", seq=0)
        await wire.frame(1)
        await wire.predicted(1)


async def _refuses_many_pixels(target: Target) -> None:
    async with target.session() as wire:
        side = math.isqrt(wire.created.limits.max_pixels) + 1
        await wire.frame(0, vast_png(side))
        await wire.refused("image_too_large", seq=0)


async def _refuses_old_frames(target: Target) -> None:
    async with target.session() as wire:
        await wire.frame(5, timestamp_ms=1000)
        await wire.predicted(5)
        for seq, timestamp_ms in ((5, 1250), (4, 1500), (6, 1000), (6, 999)):
            await wire.frame(seq, timestamp_ms=timestamp_ms)
            await wire.refused("out_of_order", seq=seq)
        await wire.frame(6, timestamp_ms=1001)
        await wire.predicted(6)


async def _ends_after_many_bad(target: Target) -> None:
    async with target.session() as wire:
        for seq in range(BAD_IN_A_ROW):
            await wire.frame(seq, NO_PICTURE)
            await wire.refused("bad_image", seq=seq)
        await wire.cut_off("too_many_bad_frames", protocol.CLOSE_PROTOCOL)


async def _forgives_after_a_good_one(target: Target) -> None:
    async with target.session() as wire:
        for seq in range(2 * BAD_IN_A_ROW):
            good = seq % BAD_IN_A_ROW == BAD_IN_A_ROW - 1
            await wire.frame(seq, JPEG if good else NO_PICTURE)
            if good:
                await wire.predicted(seq)
            else:
                await wire.refused("bad_image", seq=seq)


async def _refuses_many_bytes(target: Target) -> None:
    async with target.session() as wire:
        most = wire.created.limits.max_frame_bytes
        if most > LARGEST_UPLOAD:
            raise NotCheckedError(f"the server takes frames of {most} bytes")
        await wire.frame(0, bytes(most + 1))
        await wire.cut_off("frame_too_large", protocol.CLOSE_TOO_LARGE)


CHECKS = (
    *(
        Check(f"frame.{name}", "is predicted", functools.partial(_predicts, image=image))
        for name, image in PICTURES.items()
    ),
    Check("frame.text", "is predicted as a binary one", _predicts_text_frames),
    Check("prediction.lists", "one number a label, 1 in all", _tells_all_of_a_prediction),
    *(
        Check(
            f"prediction.top_{count}",
            "the best, best first",
            functools.partial(_ranks, top_k=count),
        )
        for count in (1, 1000)
    ),
    Check("prediction.window", "slots filled, gaps and warming_up are right", _fills_the_window),
    *(
        Check(
            f"frame.refuses.{name}",
            "bad_frame; the session goes on",
            functools.partial(_refuses_headers, data=data),
        )
        for name, data in HEADERS.items()
    ),
    Check("frame.refuses.base64", "bad_frame with its seq", _refuses_bad_base64),
    *(
        Check(
            f"frame.refuses.{name}",
            "bad_image with its seq; the session goes on",
            functools.partial(_refuses_pictures, image=image),
        )
        for name, image in PICTURES_THAT_ARE_NONE.items()
    ),
    Check("frame.refuses.pixels", "image_too_large with its seq", _refuses_many_pixels),
    Check("frame.refuses.order", "out_of_order with its seq", _refuses_old_frames),
    Check("frame.refuses.bytes", "frame_too_large and 1009", _refuses_many_bytes),
    Check("frame.eight_bad", "too_many_bad_frames and 1008", _ends_after_many_bad),
    Check("frame.seven_bad", "a good one sets the count to 0", _forgives_after_a_good_one),
)
