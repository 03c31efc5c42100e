"""Whether two maps of an image name the same places."""

import numpy as np


def rank_agreement(grad_cam: np.ndarray, occlusion: np.ndarray) -> float | None:
    """Return Spearman's rank correlation of two maps of one image, at the positions of the coarser one.

    Args:
      grad_cam: [h, w].
      occlusion: [H, W]; its mean over each position of `grad_cam` is compared.

    Returns:
      -1 to 1; None: one of the maps says the same everywhere, as a map of one position does.
    """
    from scipy.stats import rankdata

    coarse = area_mean(occlusion, grad_cam.shape)
    if np.ptp(grad_cam) == 0 or np.ptp(coarse) == 0:
        return None
    ranks = rankdata(grad_cam.ravel()), rankdata(coarse.ravel())
    return float(np.clip(np.corrcoef(*ranks)[0, 1], -1, 1))


def area_mean(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return a map [H, W] at another resolution [h, w]: the mean over the area of each position."""
    fine = np.kron(values, np.ones(shape))
    return fine.reshape(shape[0], values.shape[0], shape[1], values.shape[1]).mean(axis=(1, 3))
