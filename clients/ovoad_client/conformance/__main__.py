"""`python -m ovoad_client.conformance`."""

import sys

from ovoad_client.conformance.command import main

sys.exit(main())
