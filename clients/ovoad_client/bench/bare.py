"""Run the bare model in a process of its own and read what it measured. Knows no model."""

import asyncio
import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from ovoad_client.bench.result import Baseline
from ovoad_client.errors import ClientError, MissingExtraError

MODULE: Final = "ovoad_model.baseline"
LINES_SHOWN: Final = 5


class BaselineError(ClientError):
    """The bare model could not be measured; the text ends with what it said last."""


async def measure_baseline(
    frames: Path, flags: Sequence[str], *, stop: asyncio.Event
) -> Baseline | None:
    """Measure the bare model on a folder of JPEGs; None where `stop` came first."""
    command = [sys.executable, "-m", MODULE, "--frames", str(frames), "--json", *flags]
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is ours
    )
    stopping = asyncio.create_task(stop.wait())
    talking = asyncio.create_task(process.communicate())
    try:
        await asyncio.wait((stopping, talking), return_when=asyncio.FIRST_COMPLETED)
        if not talking.done():
            return None
        output, complaints = talking.result()
    finally:
        stopping.cancel()
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()
            await talking
    if process.returncode != 0:
        raise _failure(complaints.decode(errors="replace"), process.returncode)
    return parse_baseline(output.decode())


def parse_baseline(text: str) -> Baseline:
    """Read the JSON of the bare model's measurement; raises BaselineError."""
    try:
        found: dict[str, Any] = json.loads(text)
        return Baseline(
            encode_score_fps=_numbers(found["encode_score_fps"]),
            decode_encode_score_fps=_numbers(found["decode_encode_score_fps"]),
            bare_ms={str(stage): float(ms) for stage, ms in found["bare_ms"].items()},
            reencode_fps=_numbers(found["reencode_fps"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BaselineError(f"found {text[:80]!r}, expected the JSON of {MODULE}") from error


def _numbers(found: dict[str, Any]) -> dict[int, float]:
    return {int(count): float(rate) for count, rate in found.items()}


def _failure(complaints: str, status: int | None) -> ClientError:
    lines = complaints.strip().splitlines()[-LINES_SHOWN:]
    if lines and "ModuleNotFoundError" in lines[-1]:
        module = lines[-1].rpartition(" ")[2].strip("'")
        return MissingExtraError("the baseline", module=module, extra="server")
    tail = "\n".join(f"  | {line}" for line in lines) or "  | (it printed nothing)"
    return BaselineError(f"{MODULE} ended ({status}):\n{tail}")
