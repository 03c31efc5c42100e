"""Whether an image is of the kind that the model learned from: three scores, higher for what it knows less.

* `energy` of the logits (W. Liu et al., Energy-based out-of-distribution detection, NeurIPS 2020, eq. 4).
* `neighbors`: distance of the pooled features, scaled to length 1, to their k-th nearest training image (Y. Sun et al.,
  Out-of-distribution detection with deep nearest neighbors, ICML 2022).
* `appearance`: Mahalanobis distance of the means and standard deviations of an inner map to those of training images
  (K. Lee et al., A simple unified framework for detecting out-of-distribution samples, NeurIPS 2018; second moments:
  C. Sastry and S. Oore, Detecting out-of-distribution examples with Gram matrices, ICML 2020).

A network that learned nothing but cells may be sure of noise: the first two scores see only what it kept to tell
classes. The third sees what the image looked like. Val scales each: 0 is its median, 1 its 99 % quantile. The largest
of the three decides.
"""

from dataclasses import replace

import numpy as np

from bloodcell_jax.data.sampling import Sampler
from bloodcell_jax.devices.host import one_blas_thread
from bloodcell_jax.errors import DataError
from bloodcell_jax.evaluate.evaluator import Outputs
from bloodcell_jax.weights.calibration import OOD_SCORES, Reference

# Training images of a reference: enough for the covariance of an appearance, and a tenth of the size of Atto's file.
REFERENCE_SIZE = 2_000
# The k of the k-th nearest. The first one may itself be an odd image.
NEIGHBOR = 5
# Share of val that is refused. The promise is 2 %, and other images of the same kind may be refused a little oftener.
REFUSED = 0.01
# Above the last known image of val by so much: its score differs by rounding from machine to machine.
_MARGIN = 1e-3
# A channel that hardly differs between training images would take rounding for a surprise.
_LEAST_SPREAD = 1e-2
# Features of length 1 that were rounded to float16 are at most 2**-11 away from themselves. The 1,704 val images of PBC
# are 0.0077 away from a training image or more, for both shipped models.
_SAME_IMAGE = 0.001
# A network whose features of other images are this near to each other cannot tell them from the same image.
_LEAST_TYPICAL = 10 * _SAME_IMAGE
# This key makes the draw independent of others by the same seed.
_REFERENCE_KEY = 0x00D5


def reference_of(sampler: Sampler, labels: np.ndarray, *, seed: int, size: int = REFERENCE_SIZE) -> np.ndarray:
    """Return the examples of a run whose features are its reference, in the order of `Reference.features`.

    Args:
      sampler: of the run.
      labels: of all examples of its dataset, [n].
      seed: of the run.
      size: of the reference.

    Returns:
      Indices into the dataset, ascending.
    """
    learned_from = np.sort(np.concatenate(sampler.members))
    return learned_from[reference_examples(labels[learned_from], seed=seed, size=size)]


def reference_examples(labels: np.ndarray, *, seed: int, size: int = REFERENCE_SIZE) -> np.ndarray:
    """Return the places of `size` examples, or of all if there are fewer: as many of each class as there are.

    Args:
      labels: of all examples to draw from, [n].
      seed: decides the draw.
      size: how many are drawn.

    Returns:
      int32, ascending.
    """
    generator = np.random.Generator(np.random.Philox(key=[seed, _REFERENCE_KEY]))
    shuffled = generator.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    counts = np.bincount(labels)
    rank_in_class = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.sort(by_class[np.argsort(rank_in_class, kind="stable")[:size]]).astype(np.int32)


def learn_reference(outputs: Outputs) -> Reference:
    """Return what the outputs of training images look like; its scales are 1, until `scaled_by_val` sets them.

    The covariance is shrunk as O. Ledoit and M. Wolf say (A well-conditioned estimator for large-dimensional covariance
    matrices, J. of Multivariate Analysis 88 (2004) 365): it has more numbers than there may be images.
    """
    from sklearn.covariance import ledoit_wolf

    appearance = outputs.appearance.astype(np.float64)
    mean, spread = appearance.mean(axis=0), appearance.std(axis=0)
    spread = np.maximum(spread, max(_LEAST_SPREAD * np.median(spread), np.finfo(np.float32).tiny))
    covariance, _ = ledoit_wolf((appearance - mean) / spread, assume_centered=True)
    variances, axes = np.linalg.eigh(covariance)
    whitening = axes / np.sqrt(np.maximum(variances, np.finfo(np.float32).eps)) / spread[:, None]
    return Reference(
        features=unit_length(outputs.pooled).astype(np.float16),
        mean=mean.astype(np.float32),
        whitening=whitening.astype(np.float32),
        center=(0.0,) * len(OOD_SCORES),
        scale=(1.0,) * len(OOD_SCORES),
        threshold=1.0,
    )


def scaled_by_val(reference: Reference, scores: np.ndarray) -> Reference:
    """Return a reference with the scales and the threshold that scores of val [n, 3] give; these have no scales yet.

    At most `REFUSED` of the images of val are above the threshold.
    """
    center = np.median(scores, axis=0)
    scale = np.maximum(np.quantile(scores, 0.99, axis=0) - center, 1e-6 * (1 + np.abs(center)))
    largest = np.sort(((scores - center) / scale).max(axis=1))[::-1]
    threshold = float(largest[int(REFUSED * len(largest))]) + _MARGIN
    return replace(reference, center=tuple(center.tolist()), scale=tuple(scale.tolist()), threshold=threshold)


def scores_of(outputs: Outputs, reference: Reference) -> np.ndarray:
    """Return the three scores of each image on the scales of the reference, float64 [n, 3].

    Raises:
      DataError: the reference is of another network.
    """
    found = outputs.pooled.shape[1], outputs.appearance.shape[1]
    expected = reference.features.shape[1], len(reference.mean)
    if found != expected:
        raise DataError(
            f"the calibration in the model's file is of another network: of {expected[0]} and {expected[1]} features; "
            f"this one has {found[0]} and {found[1]}; take another copy of the file, or give the run's command again"
        )
    scores = np.stack(
        [
            energy(outputs.logits),
            neighbor_distance(outputs.pooled, *reference.wide_features),
            appearance_distance(outputs.appearance, reference),
        ],
        axis=1,
    )
    return (scores - reference.center) / reference.scale


def ood_score(scores: np.ndarray, reference: Reference) -> np.ndarray:
    """Return one score of each image [n] from its three: an image is known up to 1."""
    return scores.max(axis=1) / reference.threshold


def energy(logits: np.ndarray) -> np.ndarray:
    """Return the free energy -log sum exp of logits [n, k] at temperature 1, float64 [n]."""
    return -np.logaddexp.reduce(np.asarray(logits, np.float64), axis=1)


def neighbor_distance(
    pooled: np.ndarray, features: np.ndarray, squared_lengths: np.ndarray | None = None
) -> np.ndarray:
    """Return the distance to the k-th nearest of `features` [m, c] of length 1, of features [n, c] scaled so, [n].

    k is `NEIGHBOR`, or m if that is less. `squared_lengths` are those of `squared_distances`.
    """
    k, squared = min(NEIGHBOR, len(features)), squared_distances(pooled, features, squared_lengths)
    return np.sqrt(np.partition(squared, k - 1, axis=1)[:, k - 1]).astype(np.float64)


def count_kept(pooled: np.ndarray, reference: Reference) -> int:
    """Return how many images, by features [n, c] of them, are training images whose features the reference keeps.

    0 if the network sees all cells as nearly the same.
    """
    if reference.center[OOD_SCORES.index("neighbors")] < _LEAST_TYPICAL:
        return 0
    features, squared_lengths = reference.wide_features
    nearest = features[squared_distances(pooled, features, squared_lengths).argmin(axis=1)]
    # Differences are exact where one minus a product is not.
    return int((np.linalg.norm(unit_length(pooled) - nearest, axis=1) < _SAME_IMAGE).sum())


def appearance_distance(appearance: np.ndarray, reference: Reference) -> np.ndarray:
    """Return the Mahalanobis distance of each appearance [n, d] to those of the reference, float64 [n]."""
    with one_blas_thread():
        whitened = (appearance - reference.mean) @ reference.whitening
    return np.linalg.norm(whitened, axis=1).astype(np.float64)


def squared_distances(
    pooled: np.ndarray, features: np.ndarray, squared_lengths: np.ndarray | None = None
) -> np.ndarray:
    """Return the squared distances of features [n, c], scaled to length 1, to `features` [m, c] of length 1, [n, m].

    `squared_lengths` are those of `features`: rounded to float16, they are not exactly 1. None: they are computed.
    """
    features = features.astype(np.float32, copy=False)
    lengths = np.sum(features**2, axis=1) if squared_lengths is None else squared_lengths
    with one_blas_thread():
        products = unit_length(pooled) @ features.T
    return np.maximum(1 + lengths - 2 * products, 0)


def unit_length(features: np.ndarray) -> np.ndarray:
    """Return rows [n, c] scaled to length 1; a row of zeros stays."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(length, np.finfo(np.float32).tiny)
