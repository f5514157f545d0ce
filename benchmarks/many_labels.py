"""What many labels cost: 1, 100, 1,000 and 10,000, with the five best and with full lists.

    python benchmarks/many_labels.py [--labels 1 100 1000 10000] [--rounds 200] [--json FILE]

One session for each number of labels and kind of answer, all open at once; in every round each
sends the same frame and waits for its answer, one after the other, so that a busy machine slows all
alike. Medians of the server's own stages and of end to end; "added" is the median over the rounds
of the difference to the fewest labels with the same kind of answer. The words are embedded before
anything is measured.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from statistics import median

from ovoad_client.bench.frames import load_frames
from ovoad_client.bench.own_server import bench_server
from ovoad_client.bench.progress import Progress
from ovoad_client.bench.result import describe_machine
from ovoad_client.bench.samples import Recorder, Samples
from ovoad_client.bench.session import LoadSession, SessionPlan
from ovoad_client.bench.table import markdown

TOP_K = 5
OPEN_TIMEOUT_S = 900.0  # ten thousand new labels are embedded first
VERBS = (
    *("holding", "washing", "carrying", "painting", "repairing", "throwing", "opening", "closing"),
    *("cutting", "cleaning", "buying", "moving", "lifting", "drawing", "kicking", "pushing"),
    *("pulling", "building", "packing", "hiding"),
)
SIZES = ("a", "a small", "a large", "an old", "a new")
COLOURS = ("red", "blue", "green", "black", "white", "yellow", "brown", "grey", "pink", "orange")
THINGS = ("box", "ball", "chair", "bicycle", "car", "cup", "door", "bag", "table", "boat")


@dataclass(frozen=True)
class Figure:
    """Median milliseconds of a session with so many labels; top_k None: full lists.

    added: median difference to the fewest labels, of the same frame in the same round.
    """

    labels: int
    top_k: int | None
    score_ms: float
    total_ms: float
    end_to_end_ms: float
    added_total_ms: float
    added_end_to_end_ms: float


def make_labels(count: int) -> list[str]:
    """Return distinct actions, in words that a text encoder knows."""
    words = product(COLOURS, THINGS, VERBS, SIZES)
    labels = [f"{verb} {size} {colour} {thing}" for colour, thing, verb, size in words]
    if count > len(labels):
        raise SystemExit(f"found {count} labels, expected at most {len(labels)}")
    return labels[:count]


async def run(counts: Sequence[int], rounds: int) -> list[Figure]:
    """Open the sessions and let them take turns."""
    jpegs = load_frames(None, max_side=640)
    progress = Progress()
    kinds = list(product(counts, (TOP_K, None)))
    settings = {"OVOAD_MAX_LABELS": str(max(counts)), "OVOAD_IDLE_TIMEOUT_S": "3600"}
    async with bench_server([], sessions=16, say=progress.say, settings=settings) as url:
        recorders = [Recorder() for _ in kinds]
        async with AsyncExitStack() as stack:
            sessions = []
            for (count, top_k), recorder in zip(kinds, recorders, strict=True):
                progress.say(f"opening a session with {count} labels")
                plan = SessionPlan(
                    url,
                    make_labels(count),
                    "lossless",
                    fps=4,
                    inflight=1,
                    top_k=top_k,
                    open_timeout_s=OPEN_TIMEOUT_S,
                )
                session = await LoadSession.open(plan, recorder)
                sessions.append(await stack.enter_async_context(session.listening()))
            for number in range(rounds):
                progress.tell(f"round {number + 1} of {rounds}")
                for session in sessions:
                    await session.exchange(jpegs[number % len(jpegs)])
    taken = dict(zip(kinds, (recorder.samples for recorder in recorders), strict=True))
    return [make_figure(kind, taken[kind], taken[(counts[0], kind[1])]) for kind in kinds]


def make_figure(kind: tuple[int, int | None], mine: Samples, fewest: Samples) -> Figure:
    """Return the medians of a session, and of its differences to the one with fewest labels."""

    def added(stage: str) -> float:
        pairs = zip(mine.times_ms[stage], fewest.times_ms[stage], strict=True)
        return median(own - other for own, other in pairs)

    labels, top_k = kind
    return Figure(
        labels,
        top_k,
        median(mine.times_ms["score"]),
        median(mine.times_ms["total"]),
        median(mine.times_ms["end to end"]),
        added("total"),
        added("end to end"),
    )


def table(figures: Sequence[Figure]) -> list[str]:
    """Return the Markdown table."""
    heads = ["labels", "answer", "score ms", "total ms", "end to end ms"]
    heads += ["added total ms", "added end to end ms"]
    body = []
    for figure in sorted(figures, key=lambda each: (each.top_k is None, each.labels)):
        body.append(
            [
                f"{figure.labels:,}",
                f"best {figure.top_k}" if figure.top_k else "full lists",
                f"{figure.score_ms:.2f}",
                f"{figure.total_ms:.2f}",
                f"{figure.end_to_end_ms:.2f}",
                f"{figure.added_total_ms:+.2f}",
                f"{figure.added_end_to_end_ms:+.2f}",
            ]
        )
    return markdown(heads, body)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--labels", type=int, nargs="+", default=[1, 100, 1000, 10_000])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    counts = sorted(arguments.labels)
    figures = asyncio.run(run(counts, arguments.rounds))
    print(describe_machine())
    print(f"medians of {arguments.rounds} rounds\n")
    print("\n".join(table(figures)))
    if arguments.json:
        text = json.dumps([asdict(figure) for figure in figures], indent=1)
        arguments.json.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
