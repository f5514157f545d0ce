"""Pound a real server over real sockets with random and damaged messages, pictures and requests.

    python benchmarks/fuzz.py [--seed 1] [--messages 100000] [--minutes 30] [--connections 32]

Starts `python -m ovoad_server` with encoder `embedded`, and ends with status 1 where anything was
found that docs/robustness.md rules out. `--play N` repeats one play of a seed.
"""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from fuzzing.run import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
