"""Whole videos over HTTP: uploaded, decoded in a process of their own, scored as a session."""
