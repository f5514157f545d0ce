"""ovoad on Ray Serve beside the single process, replicas killed under load, and replicas that grow.

    python benchmarks/ray_serve.py [compare] [service] [ingress] [encoder] [growth] [--json FILE]

compare: the same loads on `ovoad serve`, on Ray with one replica of each kind, and with two, in
turn, in one run: frames/s, latency, processor time a frame by role. service: calls from replica to
replica that do nothing. ingress, encoder: one of two replicas is killed under 16 cameras. growth:
load goes up and down on a server that scales. All by default, about 10 minutes. What compare
and service write with --json is what benchmarks/scaling_simulation.py works with; --json adds to a
file that is there. Needs pip install 'ovoad[scale,demo]'. Linux.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from on_ray.breaking import broken_lines, kill_replica
from on_ray.comparison import compare, comparison_lines
from on_ray.growing import grow, growth_lines
from on_ray.service import CallCost, call_costs, service_lines, view_bytes

from ovoad_client.bench.frames import load_frames
from ovoad_client.bench.load import Load
from ovoad_client.bench.progress import Progress
from ovoad_client.bench.result import describe_machine
from ovoad_client.sources import DEFAULT_MAX_SIDE

ANSWER_BYTES = 366  # a prediction of four labels: the mean of those of `ovoad demo`
PARTS = ("compare", "service", "ingress", "encoder", "growth")


def main() -> int:
    """Run the parts asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="part", help=", ".join(PARTS))
    parser.add_argument("--seconds", type=float, default=8.0, help="of each load of compare (8)")
    parser.add_argument("--rounds", type=int, default=2, help="of compare (2)")
    parser.add_argument("--runtime", default="onnxruntime", help="what runs the encoder")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"found {', '.join(unknown)}, expected some of {', '.join(PARTS)}")
    found, failed = asyncio.run(_run(arguments))
    if arguments.json is not None:
        before = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
        text = json.dumps(before | found, indent=1, default=str)
        arguments.json.write_text(text + "\n", encoding="utf-8")
    return 1 if failed else 0


async def _run(arguments: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    progress = Progress()
    jpegs = load_frames(None, max_side=DEFAULT_MAX_SIDE)
    parts = arguments.parts or PARTS
    found: dict[str, Any] = {
        "machine": describe_machine(),
        "ray": version("ray"),
        "jpeg_bytes": sum(map(len, jpegs)) / len(jpegs),
    }
    progress.say(f"{found['machine']}, Ray {found['ray']}")
    failed = False
    if "compare" in parts:
        loads = [
            Load(8, 4.0, "realtime", arguments.seconds, 2.0),
            Load(1, 0.0, "lossless", arguments.seconds, 2.0, inflight=1),
            Load(32, 0.0, "lossless", arguments.seconds, 2.0),
        ]
        comparison = await compare(
            loads, jpegs, progress, rounds=arguments.rounds, runtime=arguments.runtime
        )
        found["comparison"] = asdict(comparison)
        _say(progress, comparison_lines(comparison))
        failed |= any(each.row.tally.complaints for each in comparison.measurements)
    if "service" in parts:
        found["service"] = await asyncio.to_thread(_service, jpegs)
        calls = [CallCost(**call) for call in found["service"]["calls"]]
        _say(progress, service_lines(calls))
    if "ingress" in parts:
        broken = await kill_replica("ingress", jpegs, progress, runtime=arguments.runtime)
        found["ingress killed"] = asdict(broken)
        _say(progress, broken_lines(broken))
        failed |= bool(broken.complaints)
    if "encoder" in parts:
        broken = await kill_replica("encoder", jpegs, progress, runtime=arguments.runtime)
        found["encoder killed"] = asdict(broken)
        _say(progress, broken_lines(broken))
        failed |= bool(broken.complaints) or broken.reconnected > 0
    if "growth" in parts:
        growth = await grow(jpegs, progress, runtime=arguments.runtime)
        found["growth"] = asdict(growth)
        _say(progress, growth_lines(growth))
        failed |= bool(growth.complaints)
    return found, failed


def _service(jpegs: Sequence[bytes]) -> dict[str, Any]:
    window = view_bytes()
    call = sum(map(len, jpegs)) // len(jpegs) + window
    payloads = {"nothing": 0, "a frame and its window": call, "4 frames and windows": 4 * call}
    return {
        "calls": [asdict(call) for call in call_costs(payloads)],
        "view_bytes": window,
        "answer_bytes": ANSWER_BYTES,
    }


def _say(progress: Progress, lines: list[str]) -> None:
    progress.say("")
    for line in lines:
        progress.say(line)
    progress.say("")


if __name__ == "__main__":
    sys.exit(main())
