"""Frames and words to scores: encoders, the window, scorers. Knows no server and no messages.

Nothing is told to anyone: libraries that report their use to their makers unless an environment
variable says no (ONNX Runtime from 1.29 on, NNCF, the hub's client) are told no before any of them
is imported. Whoever sets such a variable before is left alone.
"""

import os

for _name in ("ORT_DISABLE_TELEMETRY", "NNCF_CI", "HF_HUB_DISABLE_TELEMETRY"):
    os.environ.setdefault(_name, "1")
