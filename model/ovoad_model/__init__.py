"""Frames and words to scores: encoders, the window, scorers. Knows no server and no messages."""
