"""The ovoad server: sessions, batching, transport. Only its __main__ knows which model answers."""
