"""Write the golden activations beside this file, with timm: `python tests/weights/golden/write.py`."""

import sys
from pathlib import Path

import numpy as np
import pytest

VARIANTS = ("test_convnext2", "test_convnext3", "convnextv2_atto", "convnext_atto_ols")
FOLDER = Path(__file__).parent


@pytest.mark.parametrize("variant", VARIANTS)
def test_write(variant, torch, timm, random_params, written_as, random_images):
    from bloodcell_jax.models import create_model

    params = random_params(create_model(variant, 10))
    peer = timm.create_model(variant, num_classes=10).eval()
    tensors = {name: torch.from_numpy(array) for name, array in written_as("timm", params).items()}
    state = peer.state_dict()
    peer.load_state_dict({name: tensor.reshape(state[name].shape) for name, tensor in tensors.items()})
    images = torch.from_numpy(random_images(64).transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        stages = peer.forward_intermediates(images, indices=[0, 3], intermediates_only=True, norm=False)
        logits = peer(images).numpy()
    stages = [stage.numpy().transpose(0, 2, 3, 1)[:, ::3, ::3, ::5] for stage in stages]
    np.savez(FOLDER / f"{variant}.npz", logits=logits, stage_0=stages[0], stage_3=stages[1])


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-q"]))
