"""Temperature scaling: one number, fitted on held-out examples, that makes confidence agree with accuracy.

C. Guo et al., On calibration of modern neural networks, ICML 2017, section 4.2.
"""

import math

import numpy as np

# Networks in practice need 0.5 (trained with smoothed labels) to 3; what lies outside is noise of a few examples.
LOWEST, HIGHEST = 0.1, 10.0


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return the probabilities of logits divided by a temperature, float64 [n, k]; not finite where a logit is not.

    Args:
      logits: [n, k].
      temperature: above 0; above 1, all answers become less certain, and no answer changes.
    """
    scaled = np.asarray(logits, np.float64) / temperature
    with np.errstate(invalid="ignore"):
        powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def without_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Return what `softmax` gives at temperature 1 for the logits of probabilities [n, k] at a temperature."""
    powers = probabilities**temperature
    return powers / powers.sum(axis=1, keepdims=True)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float | None:
    """Return the temperature of lowest negative log likelihood, between `LOWEST` and `HIGHEST`, with four digits.

    The likelihood has one maximum: its logarithm is concave in 1 / temperature. Four digits are finer than what any
    number of examples tells, and coarser than what another order of sums changes.

    Args:
      logits: of examples that the network did not learn from, [n, k].
      labels: integers in [0, k), [n].

    Returns:
      None if no example is classified wrongly: any lower temperature would be better, and none is right.
    """
    from scipy.optimize import minimize_scalar

    logits = np.asarray(logits, np.float64)
    if (logits.argmax(axis=1) == labels).all():
        return None
    margins = logits - np.take_along_axis(logits, labels[:, None], axis=1)

    def loss(log_temperature: float) -> float:
        return float(np.mean(np.logaddexp.reduce(margins / math.exp(log_temperature), axis=1)))

    bounds = (math.log(LOWEST), math.log(HIGHEST))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    return round(math.exp(found.x), 4)
