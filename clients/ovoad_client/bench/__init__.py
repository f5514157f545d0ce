"""`ovoad bench`: load a server with real video, check its answers, and tell speed and capacity."""
