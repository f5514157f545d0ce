"""From similarities to probabilities of each label and of none. Knows no frame and no text.

A softmax can only rank what it is given, so background concepts share it: probabilities of all
labels and of background sum to 1, and one label alone is not certain.
"""

import numpy as np

from ovoad_model.arrays import Float32Array


def label_probabilities(
    similarities: Float32Array, background: Float32Array, *, temperature: float
) -> tuple[Float32Array, float]:
    """Share one softmax among C labels and N background concepts.

    similarities [C] and background [N] are dot products of unit vectors; the temperature is the
    encoder's, calibrated. Returns the labels' probabilities [C] and that of background, the sum
    over its concepts; both together sum to 1.
    """
    logits = np.concatenate([similarities, background]).astype(np.float64) / temperature
    weights = np.exp(logits - logits.max())
    shares = weights / weights.sum()
    count = len(similarities)
    return shares[:count].astype(np.float32), float(shares[count:].sum())
