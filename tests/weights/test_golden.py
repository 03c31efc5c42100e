"""Stored activations of timm 1.0.31: they guard the port even if timm is not installed.

`python tests/weights/golden/write.py` made them from parameters that `random_params` draws again here.
"""

from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from bloodcell_jax.models import create_model

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("variant", ["test_convnext2", "test_convnext3", "convnextv2_atto", "convnext_atto_ols"])
def test_stored_activations(variant, random_params, random_images):
    model = create_model(variant, 10)
    params = unflatten_dict(random_params(model), sep="/")
    logits, features = jax.jit(model.apply)({"params": params}, random_images(64))
    with np.load(GOLDEN / f"{variant}.npz") as golden:
        assert set(golden) == {"logits", "stage_0", "stage_3"}
        for name, expected in golden.items():
            ours = logits if name == "logits" else features[name][:, ::3, ::3, ::5]
            np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * np.abs(expected).max(), err_msg=name)
