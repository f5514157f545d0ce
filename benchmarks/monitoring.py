"""Watch a loaded server by the shipped Prometheus configuration, rules and dashboard, for real.

    python benchmarks/monitoring.py [--seconds 300] [--picture FILE] [--json FILE]
    python benchmarks/monitoring.py --redraw FILE --picture FILE

Needs `prometheus` and `promtool` (Debian: apt-get install --no-install-recommends prometheus) and
starts them and `ovoad serve` on free ports of loopback. Real clients load the server: half of the
time within its capacity, with clips, damaged pictures, lost connections and wrong keys among them,
then beyond it, until the capacity alert fires; then the load falls until it clears. Runs every
query of the dashboard and ends with status 1 where one returns nothing, a rule fails, or the alert
did not fire and clear. Takes about eight minutes; stops by itself, and ends only what it started.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from monitoring_parts.run import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
