"""How a command ends: its errors in one line each, and its exit status. Knows no command."""

import asyncio
import sys
from collections.abc import Callable

from ovoad_client.errors import ClientError, UsageError
from ovoad_client.interrupts import EXIT_INTERRUPTED


def exit_status(program: str, work: Callable[[], int]) -> int:
    """Do the work; 2 after wrong usage, 1 after another problem, 130 when it was cancelled."""
    try:
        return work()
    except UsageError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    except ClientError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 1
    except asyncio.CancelledError:
        return EXIT_INTERRUPTED
