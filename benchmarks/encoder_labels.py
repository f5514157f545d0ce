"""Embed 10,000 labels: seconds, progress as the log tells it, and memory that does not grow.

    python benchmarks/encoder_labels.py [--model ViT-B-32] [--labels 1000 10000] [--json FILE]

Each number of labels is embedded in a process of its own, through the encoder's own prompt
templates and without a cache. `embedded` first, then an open_clip model with random weights.
Memory: peak of the process beyond what it had when the first labels were embedded.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from encoder_start import write_random_weights
from many_labels import make_labels

HEADER = (
    "| encoder | labels | prompts | seconds | labels/s | memory added, MiB | of it the answer |\n"
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
)


def main(arguments: Sequence[str]) -> int:
    """Print the table; progress goes to standard error as it comes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--labels", nargs="+", type=int, default=[1000, 10_000])
    parser.add_argument("--model", default="ViT-B-32", help="open_clip's; none: embedded alone")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        embed(options.one[0], int(options.one[1]))
        return 0
    print(HEADER, flush=True)
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        names = ["embedded"]
        if options.model != "none":
            weights = write_random_weights(options.model, Path(folder))
            names.append(f"open_clip:{options.model}@{weights}")
        for name in names:
            for count in options.labels:
                figures.append(one(name, count))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


def one(name: str, count: int) -> dict[str, object]:
    """Embed so many labels in a process of its own and print the row."""
    command = [sys.executable, "-W", "ignore", __file__, "--one", name, str(count)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figure: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    shown = name.partition("@")[0]
    seconds, added, answer = (float(str(figure[k])) for k in ("s", "added_mib", "answer_mib"))
    print(
        f"| {shown} | {count} | {figure['prompts']} | {seconds:.1f} | {count / seconds:.0f} "
        f"| {added:.0f} | {answer:.0f} |",
        flush=True,
    )
    return {"encoder": shown, "labels": count, **figure}


def embed(name: str, count: int) -> None:
    """Embed some labels to warm up, then all of them; print what it took."""
    import logging
    import resource
    import time

    from ovoad_model.build import build_encoder
    from ovoad_model.vocabulary import embed_labels

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("ovoad_model.vocabulary").setLevel(logging.INFO)
    encoder = build_encoder(name, runtime="onnxruntime")
    labels = make_labels(count)
    embed_labels(labels[:256], encoder.templates, encoder.encode_text)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start = time.perf_counter()
    vectors = embed_labels(labels, encoder.templates, encoder.encode_text)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figure = {
        "prompts": count * len(encoder.templates),
        "s": seconds,
        "added_mib": peak - before,
        "answer_mib": vectors.nbytes / 2**20,
    }
    print(json.dumps(figure))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
