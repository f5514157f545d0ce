"""Parts of tests that read PromQL: which series an expression names, and by which labels."""

import re
from dataclasses import dataclass

OPERATORS = {"and", "or", "unless", "bool", "offset"}
GROUPING = r"\b(?:by|without|ignoring|on|group_left|group_right)\s*\(([^)]*)\)"
SELECTOR = re.compile(
    r"(?<![\w:.])([a-zA-Z_:][\w:]*)\s*"  # a name, no part of a number
    r"(?:\{([^}]*)\})?(?:\[[^\]]*\])?"  # matchers and range
    r"(?!\s*\(|[\w:])"  # not a function's name
)
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')


@dataclass(frozen=True)
class Selector:
    """One series selector; matchers are (label, operator, value)."""

    metric: str
    matchers: tuple[tuple[str, str, str], ...] = ()


def selectors(expression: str) -> list[Selector]:
    """Return the selectors of an expression."""
    ungrouped = re.sub(GROUPING, " ", expression)
    return [
        Selector(name, tuple(MATCHER.findall(matchers)))
        for name, matchers in SELECTOR.findall(ungrouped)
        if name not in OPERATORS
    ]


def grouping_labels(expression: str) -> set[str]:
    """Return the labels that an expression groups, matches or drops by."""
    return {
        label.strip()
        for labels in re.findall(GROUPING, expression)
        for label in labels.split(",")
        if label.strip()
    }
