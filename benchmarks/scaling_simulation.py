"""How many replicas so many cameras need, and what saturates first: from measured times.

    python benchmarks/scaling_simulation.py --measured ray_serve.json [--cameras 16 100 1000 10000]

Takes what `benchmarks/ray_serve.py compare service --json` measured: processor time of encoder and
ingress replicas a frame, the time of a call, bytes, what Serve's controller takes. For each number
of cameras at 4 frames/s it takes so many replicas that none is busier than --load, lets frames pass
them (on_ray/simulation.py), and tells latencies and how busy everything is. A part that was not
measured (--faster N: encoders N times as fast) is told as such. Needs no Ray.
"""

import argparse
import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from on_ray.simulation import FPS, Costs, Result, Simulation, Size

from ovoad_client.bench.table import markdown

LINK_BITS_PER_S = 10e9  # of a machine's network
TWO_OF_EACH = "Ray, 2 ingress, 2 encoders of 1 core"
ONE_OF_EACH = "Ray, 1 ingress, 1 encoder of 2 cores"


def main() -> int:
    """Read, simulate, tell."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--measured", type=Path, required=True)
    parser.add_argument("--cameras", type=int, nargs="+", default=[16, 100, 1000, 10_000])
    parser.add_argument("--load", type=float, default=0.7, help="share of the time busy (0.7)")
    parser.add_argument(
        "--cores", type=int, default=8, help="of an encoder replica, for the controller's sake (8)"
    )
    parser.add_argument("--seconds", type=float, default=4.0, help="simulated, of each (4)")
    parser.add_argument(
        "--faster", type=float, nargs="*", default=[10.0, 100.0], help="encoders that do not exist"
    )
    arguments = parser.parse_args()
    costs = read_costs(json.loads(arguments.measured.read_text(encoding="utf-8")))
    for line in cost_lines(costs):
        print(line)
    for factor in (1.0, *arguments.faster):
        there = replace(costs, frame_ms=costs.frame_ms / factor)
        name = "measured" if factor == 1 else f"{factor:g} times as fast: NOT measured, what if"
        print(f"\nencoders {name}\n")
        results = [
            Simulation(sized(count, there, arguments.load), there, seconds=arguments.seconds).run()
            for count in arguments.cameras
        ]
        for line in result_lines(results, there, arguments.cores):
            print(line)
    return 0


def read_costs(found: dict[str, Any]) -> Costs:
    """Take what the simulation needs from what was measured."""
    rows = [each for each in found["comparison"]["measurements"] if each["row"]["sessions"] > 1]
    one = [each["cpu_ms"] for each in rows if each["way"] == ONE_OF_EACH]
    two = [each["cpu_ms"] for each in rows if each["way"] == TWO_OF_EACH]
    calls = {call["payload"]: call for call in found["service"]["calls"]}
    rest = {way: cores["controller"] for way, cores in found["comparison"]["rest_cores"].items()}
    slope = max(0.0, (rest[TWO_OF_EACH] - rest[ONE_OF_EACH]) / 2)
    return Costs(
        frame_ms=max(cpu_ms["encoder"] for cpu_ms in one),
        ingress_ms=max(cpu_ms["ingress"] for cpu_ms in two),
        call_ms=calls["a frame and its window"]["way_ms"],
        frame_bytes=found["jpeg_bytes"],
        view_bytes=found["service"]["view_bytes"],
        answer_bytes=found["service"]["answer_bytes"],
        controller_cores=max(0.0, rest[ONE_OF_EACH] - 2 * slope),
        controller_cores_a_replica=slope,
    )


def sized(cameras: int, costs: Costs, load: float) -> Size:
    """Return the fewest replicas that are busy no more than `load` of the time."""
    fps = cameras * FPS
    return Size(
        cameras,
        math.ceil(fps / (load * costs.ingress_fps)),
        math.ceil(fps / (load * costs.encoder_fps)),
    )


def shares(result: Result, costs: Costs, cores: int) -> dict[str, float]:
    """Return how near to its limit each part is, 1 being the limit."""
    size = result.size
    fps = size.cameras * FPS
    a_loop = fps / size.ingress  # frames/s
    inward = (costs.frame_bytes + costs.answer_bytes) * a_loop * 8
    onward = (costs.frame_bytes + costs.view_bytes) * a_loop * 8
    replicas = size.ingress + math.ceil(size.encoders / cores)
    controller = costs.controller_cores + costs.controller_cores_a_replica * replicas
    return {
        "encoder cores": result.encoders_busy,
        "ingress event loops": result.ingress_busy,
        "network of an ingress machine": (inward + onward) / LINK_BITS_PER_S,
        "Serve's controller": controller,
    }


def result_lines(results: list[Result], costs: Costs, cores: int) -> list[str]:
    """Return a table, one line a number of cameras."""
    heads = ["cameras", "frames/s", "ingress replicas", "encoder cores", "calls/s", "batch"]
    heads += ["p50 ms", "p99 ms", "encoders", "loops", "network", "controller", "nearest its limit"]
    body = []
    for result in results:
        size, found = result.size, shares(result, costs, cores)
        body.append(
            [
                f"{size.cameras:,}",
                f"{size.cameras * FPS:,.0f}",
                f"{size.ingress:,}",
                f"{size.encoders:,}",
                f"{size.cameras * FPS:,.0f}",
                f"{result.mean_batch:.1f}",
                f"{result.latency_ms(0.5):.0f}",
                f"{result.latency_ms(0.99):.0f}",
                *(f"{share:.0%}" for share in found.values()),
                max(found, key=lambda part: found[part]),
            ]
        )
    return markdown(heads, body)


def cost_lines(costs: Costs) -> list[str]:
    """Return what the simulation works with."""
    return [
        f"encoder: {costs.frame_ms:.1f} ms a frame, {costs.encoder_fps:.0f} frames/s a core",
        f"ingress: {costs.ingress_ms:.2f} ms a frame, {costs.ingress_fps:.0f} frames/s a loop; "
        f"a call there and back {costs.call_ms:.2f} ms",
        f"bytes: frame {costs.frame_bytes:,.0f}, window {costs.view_bytes:,.0f}, "
        f"answer {costs.answer_bytes:,.0f}",
        f"Serve's controller: {costs.controller_cores:.3f} cores and "
        f"{costs.controller_cores_a_replica:.4f} a replica",
    ]


if __name__ == "__main__":
    sys.exit(main())
