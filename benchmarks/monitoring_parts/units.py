"""Grafana's units as text."""

from typing import Final

_SECONDS: Final = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
_BYTES: Final = ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"))


def with_unit(value: float, unit: str, decimals: int | None = None) -> str:
    """Return a value as Grafana writes it with this unit."""
    match unit:
        case "s":
            return _scaled(value, _SECONDS, "s")
        case "bytes":
            return _scaled(value, _BYTES, "B")
        case "percentunit":
            return f"{100 * value:.{0 if decimals is None else decimals}f}%"
    text = _number(value) if decimals is None else f"{value:.{decimals}f}"
    return f"{text} {unit.removeprefix('suffix:')}" if unit.startswith("suffix:") else text


def _scaled(value: float, scales: tuple[tuple[float, str], ...], smallest: str) -> str:
    for size, name in scales:
        if abs(value) >= size:
            return f"{_number(value / size)} {name}"
    return f"{_number(value)} {smallest}"


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
