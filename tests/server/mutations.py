"""Damage bytes, text and JSON in the ways that parsers fear. Knows no message and no server."""

import copy
import json
import random
from typing import Any, Final

_TELLING_BYTES: Final = (
    *(bytes((value,)) for value in (0, 1, 0x7F, 0x80, 0xFF)),
    *(b"\0\0", b"\xff\xff", bytes(4), b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0"),
    *(b"\xff\xd8", b"\xff\xc4", b"\xff\xda", b"\xff\xd9"),
    *(b"IDAT", b"IEND", b"PLTE", b"fcTL", b"VP8L", b"ALPH", b"ANMF"),
)
_TELLING_VALUES: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, -(2**63) - 1),
    *(10**400, 0.5, -0.0, 1e308, 5e-324, float("nan"), float("inf"), float("-inf")),
    *("", " ", "0", "null", "\0", "\u202e", "\ud800", "x" * 300, "{}", "{0}", "{x}", "%s%n"),
    *("../../etc/passwd", "<script>", "é" * 40, "🙂", "a\u0301", "\ufeff", "\x7f", "__class__"),
    *([], [[]], {}, {"": None}, [None] * 20, {"type": "ping"}, ["{}"], [1], [""]),
)
_TELLING_TEXT: Final = (
    *("{", "}", "[", "]", '"', ",", ":", "\\", "\\u", "\\ud800", "\0", "NaN", "Infinity"),
    *("-", "1e999", "9" * 500, "[" * 200, '{"a":' * 200, "/*", "\ufeff", "\u2028", "null"),
)
FIELDS: Final = ("type", "seq", "labels", "vocabulary", "nonce", "token", "__proto__", "", "a" * 99)


def mutate(data: bytes, choice: random.Random) -> bytes:
    """Return the bytes with one to eight changes; often in the first 80, where headers are."""
    changed = bytearray(data)
    for _ in range(choice.choice((1, 1, 1, 2, 3, 8))):
        at = choice.randrange(len(changed) + 1)
        if choice.random() < 0.5:
            at = min(at, choice.randrange(80))
        length = choice.randrange(1, 60)
        match choice.randrange(7):
            case 0 if at < len(changed):
                changed[at] ^= 1 << choice.randrange(8)
            case 1:
                changed[at : at + 1] = choice.randbytes(1)
            case 2:
                telling = choice.choice(_TELLING_BYTES)
                changed[at : at + len(telling)] = telling
            case 3:
                changed[at:at] = choice.choice(_TELLING_BYTES)
            case 4:
                del changed[at : at + length]
            case 5:
                changed[at:at] = changed[at : at + length]
            case _:
                changed[at:] = b"" if choice.random() < 0.3 else changed[at:][::-1]
    return bytes(changed)


def mutate_text(text: str, choice: random.Random) -> str:
    """Return the text with one to three changes."""
    for _ in range(choice.choice((1, 1, 2, 3))):
        at, length = choice.randrange(len(text) + 1), choice.randrange(1, 30)
        match choice.randrange(5):
            case 0:
                text = text[:at] + choice.choice(_TELLING_TEXT) + text[at:]
            case 1:
                text = text[:at] + text[at + length :]
            case 2:
                text = text[:at] + text[at : at + length] + text[at:]
            case 3:
                text = text[:at]
            case _:
                text = text[:at] + chr(choice.randrange(0x20, 0x3000)) + text[at + 1 :]
    return text


def mutate_json(value: Any, choice: random.Random) -> str:
    """Return JSON (or nearly: NaN, huge numbers) of a value with one to three changes."""
    changed = copy.deepcopy(value)
    for _ in range(choice.choice((1, 1, 2, 3))):
        changed = _mutate_value(changed, choice)
    text = json.dumps(changed, ensure_ascii=choice.random() < 0.5)
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def _mutate_value(value: Any, choice: random.Random) -> Any:
    """Change a value inside, or as a whole."""
    if isinstance(value, dict) and value and choice.random() < 0.8:
        field = choice.choice(list(value))
        match choice.randrange(8):
            case 0:
                del value[field]
            case 1:
                value[choice.choice(FIELDS)] = value.pop(field)
            case 2:
                value[choice.choice(FIELDS)] = choice.choice(_TELLING_VALUES)
            case _:
                value[field] = _mutate_value(value[field], choice)
        return value
    if isinstance(value, list) and value and choice.random() < 0.8:
        at = choice.randrange(len(value))
        match choice.randrange(4):
            case 0:
                value.insert(at, value[at])
            case 1:
                value = value * choice.choice((0, 2, 30))
            case _:
                value[at] = _mutate_value(value[at], choice)
        return value
    return choice.choice((copy.deepcopy(choice.choice(_TELLING_VALUES)), [value], {"a": value}))
