"""Measure starts of an encoder, for `encoder_speed.py --start`: seconds and memory, cold and warm.

Cold: no export, no trial, in an empty cache; warm: the second start, which reuses both; damaged:
the export cut short between two starts, so made anew. Each start is a process of its own. Weights
are random.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

HEADER = (
    "| encoder | runtime | start | import and load, s | first frame, s | peak memory, MiB |\n"
    "| --- | --- | --- | ---: | ---: | ---: |"
)
RUNTIMES = ("torch", "onnxruntime", "openvino", "auto")


def measure_starts(model: str, json_file: Path | None, markdown: Path | None) -> int:
    """Print the table of `embedded` and of an open_clip model with random weights."""
    lines: list[str] = []
    figures: list[dict[str, object]] = []
    print(HEADER, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        weights = write_random_weights(model, Path(folder))
        plan = [("embedded", runtime) for runtime in RUNTIMES if runtime != "torch"]
        plan += [(f"open_clip:{model}@{weights}", runtime) for runtime in RUNTIMES]
        for number, (name, runtime) in enumerate(plan):
            cache = Path(folder) / str(number)
            for kind in ("cold", "warm", "damaged"):
                exports = list(cache.rglob("plain/image.onnx"))
                if kind == "damaged" and not exports:
                    continue
                if kind == "damaged":
                    exports[0].write_bytes(exports[0].read_bytes()[:1000])
                shown = name.partition("@")[0]
                load_s, first_s, peak_mib = one_start(name, runtime, cache)
                figures.append(
                    {
                        "encoder": shown,
                        "runtime": runtime,
                        "start": kind,
                        "load_s": load_s,
                        "first_frame_s": first_s,
                        "peak_mib": peak_mib,
                    }
                )
                lines.append(
                    f"| {shown} | {runtime} | {kind} | {load_s:.1f} | {first_s:.2f} "
                    f"| {peak_mib:.0f} |"
                )
                print(lines[-1], flush=True)
    if markdown:
        markdown.write_text("\n".join([HEADER, *lines]) + "\n", encoding="utf-8")
    if json_file:
        json_file.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


def write_random_weights(model: str, folder: Path) -> Path:
    """Save a model of this architecture with random weights, in a process that ends again."""
    path = folder / "weights.safetensors"
    program = (
        "import sys, open_clip, torch; from safetensors.torch import save_file;"
        "torch.manual_seed(0);"
        "state = open_clip.create_model(sys.argv[1], load_weights=False).state_dict();"
        "save_file({key: tensor.contiguous() for key, tensor in state.items()}, sys.argv[2])"
    )
    command = [sys.executable, "-W", "ignore", "-c", program, model, str(path)]
    subprocess.run(command, check=True)
    return path


def one_start(name: str, runtime: str, cache: Path) -> tuple[float, float, float]:
    """Start in a process of its own: seconds to load, of the first frame, and peak MiB."""
    command = [sys.executable, "-W", "ignore", __file__, name, runtime, str(cache)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    load_s, first_s, peak_mib = json.loads(done.stdout.splitlines()[-1])
    return load_s, first_s, peak_mib


def start(name: str, runtime: str, cache: Path) -> None:
    """Do what a server does before it is ready, encode a frame, print both times and the peak."""
    import resource
    import time

    began = time.perf_counter()
    import numpy as np

    from ovoad_model.build import build_detector

    detector = build_detector(encoder=name, runtime=runtime, cache=cache)
    loaded = time.perf_counter()
    generator = np.random.default_rng(0)
    detector.encode([generator.integers(0, 256, (480, 640, 3), dtype=np.uint8)])
    done = time.perf_counter()
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps([loaded - began, done - loaded, peak_mib]))


if __name__ == "__main__":
    start(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
