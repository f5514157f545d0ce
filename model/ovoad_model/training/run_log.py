"""A run's numbers as a CSV file and for TensorBoard. Knows no network."""

import csv
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from ovoad_model.training.files import write_atomically

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


@dataclass(frozen=True)
class LogRow:
    """The numbers of one step; losses are of that step's batch."""

    step: int
    epoch: int
    learning_rate: float
    total: float
    contrastive: float
    current: float
    mask: float
    gradient_norm: float
    temperature_current: float
    temperature_joint: float
    windows_per_second: float


COLUMNS = tuple(field.name for field in fields(LogRow))


class RunLog:
    """Append rows to FOLDER/log.csv and FOLDER/tensorboard; a resumed run drops later rows."""

    def __init__(self, folder: Path, first_step: int, *, tensorboard: bool = True) -> None:
        self._path = folder / "log.csv"
        kept = self._rows_before(first_step)
        lines = [",".join(COLUMNS), *(",".join(row[name] for name in COLUMNS) for row in kept)]
        text = "".join(f"{line}\n" for line in lines)
        write_atomically(self._path, lambda stream: stream.write(text.encode()))
        self._stream = self._path.open("a", newline="")
        self._writer = _open_tensorboard(folder, first_step) if tensorboard else None

    def add(self, row: LogRow) -> None:
        """Write one row, so that a run that stops now has it."""
        values = asdict(row)
        csv.writer(self._stream, lineterminator="\n").writerow(
            f"{value:.6g}" if isinstance(value, float) else value for value in values.values()
        )
        self._stream.flush()
        if self._writer is not None:
            for name in COLUMNS[2:]:
                self._writer.add_scalar(name, values[name], row.step)

    def close(self) -> None:
        """Close the files."""
        self._stream.close()
        if self._writer is not None:
            self._writer.close()

    def _rows_before(self, first_step: int) -> list[dict[str, str]]:
        """Read the rows of an earlier part of the run; a torn last line is dropped."""
        if first_step == 0 or not self._path.exists():
            return []
        with self._path.open(newline="") as stream:
            rows = [row for row in csv.DictReader(stream) if None not in row.values()]
        return [row for row in rows if int(row["step"]) < first_step]


def _open_tensorboard(folder: Path, first_step: int) -> "SummaryWriter":
    """Import TensorBoard only where it is used, for that takes seconds."""
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder / "tensorboard"), purge_step=first_step)
