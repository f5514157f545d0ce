"""Judge encoders and scorers on real video. Knows metrics and detectors, no server."""
