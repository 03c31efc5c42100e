"""Hugging Face transformers: its files load, and the port computes the same."""

import jax
import pytest

from bloodcell_jax.models import create_model
from bloodcell_jax.models.variants import VARIANTS
from bloodcell_jax.weights import load_weights, read_weights_info

pytestmark = pytest.mark.parity
CLASSES = 10


@pytest.fixture(scope="module")
def transformers(torch):
    return pytest.importorskip("transformers", reason="transformers is not installed (extra `peers`)")


@pytest.mark.parametrize("is_safetensors", [True, False])
@pytest.mark.parametrize(
    ("variant", "size"),
    [
        *[(f"convnext_{name}", size) for name in ("atto", "tiny", "base") for size in (96, 224)],
        *[(f"convnextv2_{name}", size) for name in ("atto", "tiny") for size in (96, 224)],
    ],
)
def test_logits_and_blocks(
    variant,
    size,
    is_safetensors,
    torch,
    transformers,
    randomize,
    random_images,
    watch_blocks,
    assert_blocks_agree,
    assert_close,
    tmp_path,
):
    table = VARIANTS[variant]
    kind = "ConvNextV2" if table.grn else "ConvNext"
    config = getattr(transformers, f"{kind}Config")(
        depths=list(table.depths), hidden_sizes=list(table.dims), num_labels=CLASSES
    )
    peer = randomize(getattr(transformers, f"{kind}ForImageClassification")(config))
    # transformers keeps its own default of 1e-12 for the final norm; the published weights were trained at 1e-6.
    next(
        module for name, module in peer.named_modules() if name.endswith(".layernorm") and name.count(".") == 1
    ).eps = 1e-6
    if is_safetensors:
        peer.save_pretrained(tmp_path)
        path = tmp_path / "model.safetensors"
    else:
        path = tmp_path / "pytorch_model.bin"
        torch.save(peer.state_dict(), path)
    assert read_weights_info(path).variant == variant
    model = create_model(variant, CLASSES)
    stages = getattr(peer, kind.lower()).encoder.stages
    passed = watch_blocks({(s, b): block for s, st in enumerate(stages) for b, block in enumerate(st.layers)})
    images = random_images(size)
    with torch.no_grad():
        expected = peer(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).logits.numpy()
    params = load_weights(path, model)
    logits, _ = jax.jit(model.apply)({"params": params}, images)
    assert_close(logits, expected)
    assert_blocks_agree(model, params, passed)


def test_a_model_without_a_head_has_no_prefix_and_loads(torch, transformers, randomize, tmp_path):
    table = VARIANTS["convnext_tiny"]
    config = transformers.ConvNextConfig(depths=list(table.depths), hidden_sizes=list(table.dims))
    randomize(transformers.ConvNextModel(config)).save_pretrained(tmp_path)
    info = read_weights_info(tmp_path / "model.safetensors")
    assert (info.variant, info.num_classes) == ("convnext_tiny", None)
    load_weights(tmp_path / "model.safetensors", create_model("convnext_tiny", CLASSES))
