"""What went wrong on the way to a receiver, in a few words for the log."""

import ssl


def reason(error: Exception) -> str:
    """Return what went wrong, without the address: its path may be a secret."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate refused: {error.verify_message}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__
