"""How a check says that the contract is broken, or that this server cannot be asked."""


class MismatchError(Exception):
    """A breach of the contract: what was found and what was expected."""

    def __init__(self, found: object, expected: object) -> None:
        super().__init__(f"found {found}, expected {expected}")
        self.found = str(found)
        self.expected = str(expected)


class NotCheckedError(Exception):
    """Why this server cannot be asked; no breach."""


def expect(condition: bool, found: object, expected: object) -> None:
    """Raise MismatchError unless the condition holds."""
    if not condition:
        raise MismatchError(found, expected)


def equal(found: object, expected: object, what: str) -> None:
    """Raise MismatchError unless both are equal."""
    expect(found == expected, f"{what} {found!r}", repr(expected))
