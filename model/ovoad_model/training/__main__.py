"""`python -m ovoad_model.training features|captions|train ...`, which torchrun can start."""

import sys

from ovoad_model.training.commands import captions_main, features_main, train_main

COMMANDS = {"features": features_main, "captions": captions_main, "train": train_main}

if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
    sys.exit(f"usage: python -m ovoad_model.training {'|'.join(COMMANDS)} ...")
sys.exit(COMMANDS[sys.argv[1]](sys.argv[2:]))
