"""What a key is made of, and what is kept of it. Knows no file of keys and no server."""

import hashlib
import secrets
from pathlib import Path
from typing import Final

PREFIX: Final = "ovoad_"  # so that people and scanners of code recognise a key that has leaked
RANDOM_BYTES: Final = 24  # 192 bits
LEAST_CHARACTERS: Final = 22  # of a key made elsewhere: what 128 bits take in base64
LEAST_KINDS: Final = 8  # of characters in it
MOST_SECRET_BYTES: Final = 4096  # of a file that holds one


def generate_key() -> str:
    """Return a new key: the prefix and 192 random bits in base64url."""
    return PREFIX + secrets.token_urlsafe(RANDOM_BYTES)


def digest_of(key: bytes) -> bytes:
    """Return the SHA-256 of a key: 32 bytes, all that is stored of it.

    A slow, salted hash (scrypt, Argon2) makes up for the few bits of a password that a person
    chose: it makes each guess dear. A generated key has 192 random bits: at 10^12 guesses a second
    half of all keys take 10^38 years, with any hash. What is left of a hash's work is that the
    file gives no key away, which SHA-256 does; and that a look-up costs microseconds, so that
    neither a crowd of cameras nor a flood of wrong keys takes the processor from the frames. No
    salt is needed either: no two random keys are alike, and there is no table of them.
    """
    return hashlib.sha256(key).digest()


def check_key(key: str) -> None:
    """Raise ValueError for a key that no header can carry."""
    if not key or not all("!" <= character <= "~" for character in key):
        raise ValueError(
            "found an API key that is empty or has blanks, expected printable ASCII without any"
        )


def check_strength(key: str) -> None:
    """Raise ValueError for a key made elsewhere that cannot have 128 random bits."""
    check_key(key)
    if len(key) < LEAST_CHARACTERS or len(set(key)) < LEAST_KINDS:
        raise ValueError(
            f"found a key of {len(key)} characters, {len(set(key))} of them different, expected "
            f"at least {LEAST_CHARACTERS} random ones: only its SHA-256 protects it where the "
            "file is read"
        )


def read_secret(path: Path) -> str:
    """Return the one line of a file, as Docker and others hand secrets out; raises ValueError."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_SECRET_BYTES + 1)
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise ValueError(f"cannot read {path}: {reason}") from None
    if len(data) > MOST_SECRET_BYTES:
        raise ValueError(f"found more than {MOST_SECRET_BYTES} bytes in {path}, expected one key")
    try:
        return data.decode("ascii").rstrip("\r\n")
    except UnicodeDecodeError:
        raise ValueError(f"found bytes in {path} that are not ASCII, expected one key") from None
