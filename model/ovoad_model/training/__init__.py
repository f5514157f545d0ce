"""Training: timed captions, frame features, the losses, the loop. Needs torch in the loop alone."""
