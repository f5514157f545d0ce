"""Does training teach anything? A made-up world with classes that training never saw.

    python benchmarks/synthetic_world.py            three seeds, a table, a JSON file and a plot
    python benchmarks/synthetic_world.py --quick    the same in seconds, far too small to learn
    … --scene 0 --seeds 1 --losses all --start encoder    one row, all heads from the encoder

Per seed: a new world, the training-free scorers on it, and four training runs: L_contras alone,
with L_current, with L_mask, with both (the paper's Table 4); the last is also scored without P_AC
(the paper's ablation of the scores). All numbers are per-frame mAP on the unseen classes.
"""

import argparse
import json
import platform
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from ovoad_model.training.settings import TrainingSettings
from ovoad_model.training.synthetic import World, WorldSettings
from ovoad_model.training.synthetic_trial import (
    TRIAL_NETWORK,
    TRIAL_SETTINGS,
    Start,
    ablated,
    mean_average_precision,
    scoring_variants,
    train_in_world,
    training_free,
    windows_of,
)

LOSSES = {
    "L_contras": (False, False),
    "L_contras + L_current": (True, False),
    "L_contras + L_mask": (False, True),
    "all": (True, True),
}
BASELINES = ("frame", "average", "cluster")
PAPER = {
    "frame": 28.0,
    "average": 29.1,
    "cluster": 29.7,
    "L_contras": 32.9,
    "L_contras + L_current": 36.3,
    "L_contras + L_mask": 33.6,
    "all": 37.5,
    "all, without P_AC": 34.1,
}
"""On THUMOS'14 (ViT-B/16, ActivityNet): for the shape of the table, not for its numbers."""


@dataclass(frozen=True)
class Job:
    """One training run, or the training-free scorers where losses is None."""

    world: WorldSettings
    settings: TrainingSettings
    losses: str | None
    start: Start


@dataclass(frozen=True)
class JobResult:
    """Row name -> mAP in percent, and what the run took."""

    seed: int
    rows: dict[str, float]
    steps: int = 0
    seconds: float = 0.0


def run_job(job: Job) -> JobResult:
    """Run one job on one thread."""
    torch.set_num_threads(1)
    world = World(job.world)
    videos = world.test_videos()
    windows = windows_of(videos)
    if job.losses is None:
        found = {
            str(scorer.name): mean_average_precision(scorer, world, windows, videos)
            for scorer in training_free(world)
        }
        return JobResult(job.world.seed, found)
    current, mask = LOSSES[job.losses]
    settings = ablated(job.settings, current=current, mask=mask)
    with tempfile.TemporaryDirectory() as folder:
        trained = train_in_world(world, Path(folder), settings=settings, start=job.start)
    rows = {}
    for name, scorer in scoring_variants(trained.network).items():
        row = job.losses if name.startswith("P_AC") else f"{job.losses}, {name}"
        if row == job.losses or job.losses == "all":
            rows[row] = mean_average_precision(scorer, world, windows, videos)
    return JobResult(job.world.seed, rows, trained.steps, trained.seconds)


def jobs_of(seeds: range, template: Job, losses: list[str]) -> list[Job]:
    """All jobs, the long ones first: the template with each seed and each row of losses."""
    return [
        replace(
            template,
            world=replace(template.world, seed=seed),
            settings=replace(template.settings, seed=seed),
            losses=row,
        )
        for row in (*losses, None)
        for seed in seeds
    ]


def table_of(results: list[JobResult]) -> dict[str, list[float]]:
    """Row name -> mAP of each seed, in the order that is printed."""
    rows: dict[str, list[float]] = {}
    for result in sorted(results, key=lambda result: result.seed):
        for name, value in result.rows.items():
            rows.setdefault(name, []).append(value)
    order = [*BASELINES, *LOSSES, "all, without P_AC", "all, without P_DNTR"]
    return {name: rows[name] for name in order if name in rows}


def print_table(rows: dict[str, list[float]]) -> None:
    """Print mean and spread over seeds beside the paper's number on its own data."""
    print(
        f"{'scorer or losses':24}{'mAP, unseen':>13}{'± seeds':>9}   each seed" + " " * 8 + "paper"
    )
    for name, values in rows.items():
        each = " ".join(f"{value:5.1f}" for value in values)
        paper = PAPER.get(name)
        told = "" if paper is None else f"{paper:.1f}"
        print(f"{name:24}{np.mean(values):13.1f}{np.std(values):9.1f}   {each}  {told:>6}")
    if "all" not in rows:
        return
    best = max(BASELINES, key=lambda name: float(np.mean(rows[name])))
    margins = np.array(rows["all"]) - np.array(rows[best])
    print(
        f"\novoad (all) - {best}: {margins.mean():+.1f} ± {margins.std():.1f} "
        f"(each seed: {' '.join(f'{margin:+.1f}' for margin in margins)})"
    )


def plot(rows: dict[str, list[float]], path: Path) -> None:
    """Draw the rows as bars with their spread."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(rows)[::-1]
    colours = ["#9aa5b1" if name in BASELINES else "#2f6f9f" for name in names]
    figure, axes = pyplot.subplots(figsize=(7, 3.8), layout="constrained")
    means = [float(np.mean(rows[name])) for name in names]
    axes.barh(names, means, xerr=[float(np.std(rows[name])) for name in names], color=colours)
    for place, mean in enumerate(means):
        axes.text(1, place, f"{mean:.1f}", va="center", color="white", fontsize=9)
    axes.set_xlabel("per-frame mAP on classes that training never saw (%)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main(argv: list[str]) -> int:
    """Run all jobs in processes of one thread each; print, write and plot the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=10, help="0 to 2 served for choosing")
    parser.add_argument("--workers", type=int, default=2, help="processes (2)")
    parser.add_argument("--quick", action="store_true", help="one seed, a few steps")
    parser.add_argument("--scene", type=float, help="strength of scenes, other than the default")
    parser.add_argument("--distractor-share", type=float, help="other than the default")
    parser.add_argument("--classes", type=int, help="seen classes, other than the default")
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES))
    parser.add_argument(
        "--start",
        choices=get_args(Start),
        default="current_head",
        help="what starts as the encoder's own projection; encoder: the joint heads too",
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args(argv)
    world, settings = WorldSettings(), TRIAL_SETTINGS
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    if arguments.scene is not None:
        world = replace(world, scene=arguments.scene)
    if arguments.distractor_share is not None:
        world = replace(world, distractor_share=arguments.distractor_share)
    if arguments.classes is not None:
        world = replace(world, seen_classes=arguments.classes)
    if arguments.quick:
        world = replace(world, training_videos=6, test_videos=3, video_frames=120)
        settings = replace(settings, epochs=1, warmup_epochs=0, batch_size=32)
        seeds = seeds[:1]
    started_s = time.perf_counter()
    jobs = jobs_of(seeds, Job(world, settings, None, arguments.start), arguments.losses)
    if arguments.workers == 1:
        results = [run_job(job) for job in jobs]
    else:
        with ProcessPoolExecutor(arguments.workers, get_context("spawn")) as pool:
            results = list(pool.map(run_job, jobs))
    rows = table_of(results)
    print_table(rows)
    minutes = (time.perf_counter() - started_s) / 60
    print(f"{len(jobs)} jobs, {minutes:.1f} minutes with {arguments.workers} processes")
    arguments.out.mkdir(parents=True, exist_ok=True)
    report = {
        "rows": rows,
        "minutes": minutes,
        "steps": max(result.steps for result in results),
        "machine": platform.platform(),
        "world": asdict(world),
        "network": asdict(TRIAL_NETWORK),
        "settings": asdict(settings),
        "start": arguments.start,
    }
    (arguments.out / "synthetic_world.json").write_text(json.dumps(report, indent=2) + "\n")
    plot(rows, arguments.out / "synthetic_world.png")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
