"""The image's health check: ask this container's server whether it is ready; exit 0 or 1.

http.client and not urllib, which would ask a proxy that the environment names.
"""

import http.client
import os
import sys

TIMEOUT_S = 8.0
"""The server gives its model 5 s to answer."""


def main() -> int:
    """Print what /readyz says, for `docker inspect`; returns the exit status."""
    port = int(os.environ.get("OVOAD_PORT") or 8000)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        print(answer.read(1000).decode(errors="replace"))
    except (OSError, http.client.HTTPException) as error:
        print(f"no answer from 127.0.0.1:{port}: {error}")
        return 1
    return 0 if answer.status == http.client.OK else 1


if __name__ == "__main__":
    sys.exit(main())
