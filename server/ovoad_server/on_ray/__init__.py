"""The server on more than one machine: Ray Serve starts, scales and replaces its parts."""
