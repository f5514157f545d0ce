"""`python -m ovoad_client` is the command `ovoad`."""

import sys

from ovoad_client.cli import main

if __name__ == "__main__":
    sys.exit(main())
