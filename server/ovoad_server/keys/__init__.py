"""API keys, with names and limits, in a file that is followed: who may come in, and how far."""
