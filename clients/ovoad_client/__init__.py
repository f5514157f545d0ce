"""The ovoad client: wire schema, streaming client, video sources and terminal programs."""
