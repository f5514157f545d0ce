"""`ovoad encoders`: list the encoders that can be named, and what is at hand of each."""

import argparse
import sys

from ovoad_model.build import ENCODERS, build_encoder
from ovoad_model.errors import ModelError


def main(argv: list[str] | None = None) -> int:
    """Load each encoder and print its facts; returns 1 where one cannot be loaded."""
    parser = argparse.ArgumentParser(
        prog="ovoad encoders", description="List the encoders that --encoder takes."
    )
    parser.parse_args(argv)
    failed = 0
    for name in ENCODERS:
        try:
            encoder = build_encoder(name)
        except ModelError as error:
            print(f"{name}\n  not usable: {error}", file=sys.stderr)
            failed = 1
            continue
        print(
            f"{encoder.name}\n"
            f"  input        {encoder.input_size} x {encoder.input_size} pixels\n"
            f"  features     {encoder.feature_width} wide, joint space {encoder.embedding_width}\n"
            f"  languages    {', '.join(encoder.languages)}\n"
            f"  templates    {', '.join(encoder.templates)}\n"
            f"  background   {', '.join(encoder.background)}\n"
            f"  temperature  {encoder.temperature:.4g}\n"
            f"  floor        {encoder.background_floor:.4g} for background\n"
            f"  fingerprint  {encoder.fingerprint}"
        )
    return failed
