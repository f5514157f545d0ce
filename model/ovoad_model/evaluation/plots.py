"""Pictures of an evaluation: bars per label, precision-recall curves, one video's timeline.

Knows scores, no detector. Needs matplotlib, which only `--plots` asks for.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from ovoad_model.evaluation.judge import LabelResult, ScorerResult, pool_frames
from ovoad_model.evaluation.scored import ScoredVideo
from ovoad_model.metrics import EvaluationError, precision_recall

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours: told apart by people who see colours differently.
COLOURS: Final = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#7A6B00", "#444444",
)  # fmt: skip
GREY: Final = "#C8C8C8"
BACKGROUND: Final = "#909090"
SHOWN: Final = len(COLOURS)  # curves in one picture that get a colour and a name


def draw_all(
    directory: Path,
    labels: Sequence[str],
    result: ScorerResult,
    videos: Sequence[ScoredVideo],
    *,
    calibrated: bool,
    timeline: str | None = None,
) -> list[Path]:
    """Draw the three pictures of one scorer; `timeline` names the video, else it is the first."""
    directory.mkdir(parents=True, exist_ok=True)
    chosen = _video_named(timeline, videos)
    figures = {
        "per_label": per_label_bars(result, calibrated=calibrated),
        "precision_recall": precision_recall_curves(labels, result, videos),
        "timeline": score_timeline(labels, result.scorer, chosen),
    }
    paths = []
    for name, figure in figures.items():
        path = directory / f"{result.scorer}_{name}.png"
        figure.savefig(path, dpi=120)
        paths.append(path)
    return paths


def per_label_bars(result: ScorerResult, *, calibrated: bool) -> Figure:
    """Draw each label's average precision, the best on top, and their mean."""
    metric = "calibrated average precision" if calibrated else "average precision"
    mean = result.mean_calibrated_average_precision if calibrated else result.mean_average_precision
    shown = sorted(
        ((_value(label, calibrated), label) for label in result.labels if label.frames),
        key=lambda pair: pair[0],
    )
    figure, axes = _figure(8.0, 1.4 + 0.26 * len(shown))
    values = [value for value, _ in shown]
    rows = np.arange(len(shown))
    axes.barh(rows, values, color=COLOURS[0], height=0.72)
    for row, value in enumerate(values):
        axes.text(value + 0.01, row, f"{value:.2f}", va="center", fontsize=8)
    axes.set_yticks(rows, [label.label for _, label in shown], fontsize=9)
    axes.set_ylim(-0.7, len(shown) - 0.3)
    axes.set_xlim(0, 1.08)
    axes.set_xlabel(metric)
    if mean is not None:
        axes.axvline(mean, color=COLOURS[4], linewidth=1.2, linestyle="--")
        axes.set_title(f"scorer {result.scorer}: mean {mean:.3f} (dashed)", fontsize=11)
    return figure


def precision_recall_curves(
    labels: Sequence[str], result: ScorerResult, videos: Sequence[ScoredVideo]
) -> Figure:
    """Draw each label's curve; the most frequent ones in colour, the others in grey."""
    pool = pool_frames(videos)
    order = sorted(range(len(labels)), key=lambda column: -result.labels[column].frames)
    present = [column for column in order if result.labels[column].frames]
    figure, axes = _figure(8.6, 5.0)
    for rank, column in reversed(list(enumerate(present))):
        curve = precision_recall(pool.ranked[:, column], pool.targets[:, column])
        named = rank < SHOWN
        value = result.labels[column].average_precision
        axes.step(
            np.concatenate([[0.0], curve.recall]),
            np.concatenate([curve.precision[:1], curve.precision]),
            where="pre",
            color=COLOURS[rank] if named else GREY,
            linewidth=1.6 if named else 0.8,
            label=f"{labels[column]} ({value:.2f})" if named else None,
        )
    axes.set(xlim=(0, 1.01), ylim=(0, 1.03), xlabel="recall", ylabel="precision")
    handles, names = axes.get_legend_handles_labels()
    axes.legend(
        handles[::-1],
        names[::-1],
        fontsize=8,
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        frameon=False,
        title="label (AP)" + ("; others grey" if len(present) > SHOWN else ""),
        title_fontsize=8,
    )
    axes.set_title(f"scorer {result.scorer}: precision and recall over all frames", fontsize=11)
    return figure


def score_timeline(labels: Sequence[str], scorer: str, video: ScoredVideo) -> Figure:
    """Draw one video: probability of its labels over time above, what is true below."""
    shown = _labels_to_show(video)
    seconds = video.truth.timestamps_ms / 1000
    figure = _import_figure()(figsize=(11.0, 5.2), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3.0, 0.5 + 0.16 * len(shown)))
    upper.plot(seconds, video.background, color=BACKGROUND, linewidth=1.2, label="background")
    others = np.delete(video.probabilities, shown, axis=1)
    if others.shape[1]:
        upper.plot(
            seconds, others.max(axis=1), color=GREY, linewidth=1.0, label="highest other label"
        )
    for rank, column in enumerate(shown):
        upper.plot(
            seconds,
            video.probabilities[:, column],
            color=COLOURS[rank],
            linewidth=1.4,
            label=labels[column],
        )
    upper.set(ylim=(0, 1.02), ylabel="probability")
    upper.set_title(f"{video.truth.video}, scorer {scorer}", fontsize=11)
    _style(upper)
    upper.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.02), frameon=False)
    _draw_truth(lower, video, shown, labels)
    return figure


def _draw_truth(
    axes: Axes, video: ScoredVideo, shown: Sequence[int], labels: Sequence[str]
) -> None:
    """Draw one row per label with a bar for each of its instances, and one for all others."""
    truth = video.truth
    seconds = truth.timestamps_ms / 1000
    step_s = float(np.median(np.diff(seconds))) if len(seconds) > 1 else 0.25
    names = [labels[column] for column in shown]
    for instance in truth.instances:
        if instance.end <= instance.first:
            continue
        row = shown.index(instance.label) if instance.label in shown else len(shown)
        start_s = seconds[instance.first]
        length_s = seconds[instance.end - 1] + step_s - start_s
        colour = COLOURS[row] if row < len(shown) else GREY
        axes.broken_barh([(start_s, length_s)], (row - 0.38, 0.76), facecolors=colour)
        if row == len(shown) == len(names):
            names.append("other labels")
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set(ylim=(len(names) - 0.4, -0.6), xlabel="time in seconds", ylabel="truth")
    axes.set_xlim(float(seconds[0]), float(seconds[-1]) + step_s)
    _style(axes)


def _labels_to_show(video: ScoredVideo) -> list[int]:
    """Choose up to eight labels: those that happen, longest first, then the highest peaks."""
    frames = video.truth.targets.sum(axis=0)
    peaks = video.probabilities.max(axis=0)
    order = sorted(range(len(peaks)), key=lambda column: (-frames[column], -peaks[column]))
    return order[:SHOWN]


def _video_named(name: str | None, videos: Sequence[ScoredVideo]) -> ScoredVideo:
    if name is None:
        return videos[0]
    for video in videos:
        if video.truth.video == name:
            return video
    known = ", ".join(video.truth.video for video in videos[:10])
    raise EvaluationError(f"found no video {name!r} to draw, expected one of {known}")


def _value(label: LabelResult, calibrated: bool) -> float:
    value = label.calibrated_average_precision if calibrated else label.average_precision
    return 0.0 if value is None else value


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = _import_figure()(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    _style(axes)
    return figure, axes


def _style(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(length=3)


def _import_figure() -> type[Figure]:
    """Import matplotlib's figure, which keeps no global state; say what to install without it."""
    try:
        from matplotlib.figure import Figure
    except ImportError as cause:
        raise EvaluationError(
            "found no matplotlib, expected it for --plots: pip install 'ovoad[demo]'"
        ) from cause
    return Figure
