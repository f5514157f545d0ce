"""Encoders `open_clip:…`: any CLIP that open_clip knows. Importing it imports no torch."""
