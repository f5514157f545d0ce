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
    logits = similarities.astype(np.float64) / temperature
    concepts = np.logaddexp.reduce(background.astype(np.float64) / temperature)
    none = np.logaddexp(floor / temperature, concepts - np.log(len(background)))
    whole = np.logaddexp(np.logaddexp.reduce(logits), none)
    return np.exp(logits - whole).astype(np.float32), float(np.exp(none - whole))
