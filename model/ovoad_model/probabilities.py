"""From similarities to probabilities of each label and of none. Knows no frame and no text.

A softmax can only rank what it is given, so background shares it: the probabilities of all labels
and of background sum to 1, and one label alone is not certain.
"""

import numpy as np

from ovoad_model.arrays import Float32Array


def label_probabilities(
    similarities: Float32Array, background: Float32Array, *, temperature: float, floor: float
) -> tuple[Float32Array, float]:
    """Share one softmax among C labels and background.

    similarities [C] and background [N] are similarities to the labels and to N >= 1 background
    concepts; temperature and floor are the scorer's, calibrated. Background weighs
    exp(floor / T) + mean over its concepts of exp(similarity / T): the mean, so that more concepts
    are no bias, and the floor as the similarity that a label must clear even where no concept fits
    (-inf for none). Returns the labels' probabilities [C] and that of background.
    """
    concepts = background.astype(np.float64) / temperature
    logits = similarities.astype(np.float64) / temperature
    highest = logits.max(initial=max(concepts.max(), floor / temperature))
    none = np.exp(floor / temperature - highest) + np.exp(concepts - highest).mean()
    weights = np.exp(logits - highest)
    whole = weights.sum() + none
    return (weights / whole).astype(np.float32), float(none / whole)
