"""Rebalancing by the loss: class weights, and the class prior that predictions follow."""

import numpy as np


def class_weights(kind: str, counts: np.ndarray, mix: np.ndarray, *, beta: float = 0.999) -> np.ndarray | None:
    """Return one loss weight per class, float32 [classes], whose mean over the training mix is 1.

    So the learning rate keeps its meaning.

    Args:
      kind: `none`; `inverse`, 1 / n_c; `effective`, (1 - beta) / (1 - beta^n_c), the inverse effective number of
        examples (Cui et al. 2019, arXiv:1901.05555, equation 4).
      counts: training examples of each class, [classes].
      mix: how often training shows each class, [classes], sum 1.
      beta: for `effective`, in [0, 1): 0 weighs all alike, towards 1 it becomes `inverse`.
    """
    if kind == "none":
        return None
    counts = np.maximum(counts, 1).astype(np.float64)
    weights = 1 / counts if kind == "inverse" else (1 - beta) / (1 - beta**counts)
    return (weights / (mix * weights).sum()).astype(np.float32)


def logit_offset(target: str, counts: np.ndarray, mix: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """Return what to add to the logits in the training loss alone, float32 [classes].

    A network trained on classes in proportion to `mix` learns posteriors under `mix`. With log(mix / prior) added
    while training (Menon et al. 2021, arXiv:2007.07314, 4.2), its own logits follow `prior` instead.

    Args:
      target: whose prior predictions are to follow: `natural`, the class frequencies of the training split, or
        `balanced`, all classes alike.
      counts, mix, weights: as for `class_weights`; a weight acts like showing its class more often.
    """
    shown = mix if weights is None else mix * weights
    prior = counts / counts.sum() if target == "natural" else np.full(len(counts), 1 / len(counts))
    # A class without examples has no evidence either way.
    return np.log(np.where(counts > 0, shown / shown.sum() / np.maximum(prior, 1e-12), 1)).astype(np.float32)
