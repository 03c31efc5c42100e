"""With the same weights, the port computes the same as timm: the logits, and each block on its own.

The weights are random, and each is away from its initial value, because a wrong block is invisible at layer scale 1e-6.
A tolerance of 1e-5 of the logits' scale tells erf GELU from tanh GELU (3e-4) and eps 1e-5 from 1e-6 (3e-5).
"""

import jax
import pytest

from bloodcell_jax.models import create_model
from bloodcell_jax.weights import load_weights, read_weights_info

CLASSES = 10
# Of the published variants the smallest; test_golden.py has other kinds of stems and blocks.
QUICK = [("convnext_atto", 96)]
MORE = [
    *[(f"convnext_{size}", 96) for size in ("femto", "pico", "nano", "tiny", "small", "base")],
    *[(f"convnext_{size}_ols", 96) for size in ("atto", "femto", "pico", "nano")],
    *[(f"convnextv2_{size}", 96) for size in ("femto", "pico", "nano", "tiny", "base")],
    *[(variant, 160) for variant in ("test_convnext", "test_convnext2", "test_convnext3")],
    *[(f"convnext{name}", 224) for name in ("_atto", "_tiny", "_base", "v2_atto", "v2_tiny")],
    ("convnext_tiny_hnf", 96),
    ("convnext_tiny", 101),
    ("convnextv2_atto", 96),
]


@pytest.mark.parametrize(
    ("variant", "size"), [*QUICK, *[pytest.param(*case, marks=pytest.mark.parity) for case in MORE]]
)
def test_logits_and_blocks(
    variant, size, torch, timm, randomize, random_images, watch_blocks, assert_blocks_agree, assert_close, tmp_path
):
    peer = randomize(timm.create_model(variant, num_classes=CLASSES))
    torch.save(peer.state_dict(), tmp_path / "weights.pth")
    model = create_model(variant, CLASSES)
    params = load_weights(tmp_path / "weights.pth", model)
    passed = watch_blocks({(s, b): block for s, st in enumerate(peer.stages) for b, block in enumerate(st.blocks)})
    images = random_images(size)
    with torch.no_grad():
        expected = peer(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()

    logits, features = jax.jit(model.apply)({"params": params}, images)
    assert_close(logits, expected)
    for s, depth in enumerate(model.variant.depths):
        assert_close(features[f"stage_{s}"], passed[s, depth - 1][1])
    assert_blocks_agree(model, params, passed)


@pytest.mark.parametrize("variant", ["test_convnext2", pytest.param("convnextv2_atto", marks=pytest.mark.exhaustive)])
def test_facebooks_names_mean_to_timm_what_they_mean_to_us(
    variant, torch, timm, random_params, written_as, random_images, assert_close, tmp_path
):
    model = create_model(variant, CLASSES)
    written = {name: torch.from_numpy(array) for name, array in written_as("facebook", random_params(model)).items()}
    peer = timm.create_model(variant, num_classes=CLASSES).eval()
    peer.load_state_dict(timm.models.convnext.checkpoint_filter_fn(written, peer))
    torch.save({"model": written}, tmp_path / "weights.pth")
    images = random_images(32)
    with torch.no_grad():
        expected = peer(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    logits, _ = jax.jit(model.apply)({"params": load_weights(tmp_path / "weights.pth", model)}, images)
    assert_close(logits, expected)


@pytest.mark.parametrize("variant", ["convnextv2_atto", pytest.param("convnextv2_femto", marks=pytest.mark.parity)])
def test_fcmaes_names_mean_to_timm_what_they_mean_to_us(
    variant, torch, timm, random_params, written_as, random_images, assert_close, tmp_path
):
    model = create_model(variant, CLASSES)
    params = {name: array for name, array in random_params(model).items() if not name.startswith("head")}
    written = {name: torch.from_numpy(array) for name, array in written_as("facebook", params).items()}
    peer = timm.create_model(variant, num_classes=0).eval()
    peer.load_state_dict(timm.models.convnext.checkpoint_filter_fn(written, peer), strict=False)
    torch.save({"model": written}, tmp_path / "weights.pth")
    images = random_images(32)
    with torch.no_grad():
        expected = peer.forward_features(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).permute(0, 2, 3, 1)
    _, features = jax.jit(model.apply)({"params": load_weights(tmp_path / "weights.pth", model)}, images)
    assert_close(features["stage_3"], expected)


@pytest.mark.parametrize(
    "variant",
    ["convnext_tiny", "convnext_xxlarge", "convnextv2_atto", "test_convnext", "test_convnext2", "test_convnext3"],
)
def test_eps_and_activation_are_timms(variant, torch, timm):
    """The logits differ by only 4e-6 between eps 1e-6 and 1e-12, which is too little to rely on."""
    with torch.device("meta"):
        block = timm.create_model(variant).stages[0].blocks[0]
    activations = {"GELU": "gelu", "GELUTanh": "gelu_tanh", "SiLU": "silu"}
    ours = create_model(variant, CLASSES).variant
    assert ours.norm_eps == block.norm.eps
    assert ours.activation == activations[type(block.mlp.act).__name__]


def test_info_names_the_variant(torch, timm, tmp_path):
    torch.save(timm.create_model("convnext_atto_ols", num_classes=CLASSES).state_dict(), tmp_path / "weights.pth")
    info = read_weights_info(tmp_path / "weights.pth")
    assert (info.variant, info.num_classes, info.norm_eps, info.activation) == ("convnext_atto_ols", 10, 1e-6, "gelu")
