"""The catalog is consistent and complete, and every entry is a variant that exists."""

import re
from pathlib import Path

import pytest

from bloodcell_jax.errors import DataError
from bloodcell_jax.models.variants import VARIANTS
from bloodcell_jax.weights import catalog
from bloodcell_jax.weights.catalog import CATALOG, entry_of_file, find_weights


@pytest.mark.parametrize("entry", CATALOG.values(), ids=CATALOG)
def test_an_entry_is_consistent(entry):
    assert entry.variant in VARIANTS
    assert entry.url.startswith("https://")
    assert re.fullmatch(r"([0-9a-f]{64}|[0-9a-f]{8})?", entry.sha256)
    assert entry.top1 is None or 45 < entry.top1 < 90
    # Files with a head of 22k or 12k classes, or without a head, have no ImageNet-1k accuracy; all others have one.
    assert (entry.top1 is None) == bool(re.search(r"(in22k|in12k|\.fcmae|notop|lvd1689m)$", entry.name))
    if len(entry.sha256) == 8 and "torchvision" not in entry.name:
        assert entry.url.endswith(f"-{entry.sha256}.pth")
    assert (entry.licence == "CC-BY-NC-4.0") == entry.variant.startswith("convnextv2")


def test_names_of_files_are_unique():
    assert len({entry.file_name for entry in CATALOG.values()}) == len(CATALOG)
    assert len({entry.url for entry in CATALOG.values()}) == len(CATALOG)


@pytest.mark.parametrize(
    ("name", "top1", "input_size", "licence"),
    [
        ("convnext_base.fb_in22k_ft_in1k", 85.8, 224, "MIT"),
        ("convnext_tiny.in1k_torchvision", 82.520, 224, "BSD-3-Clause"),
        ("keras/convnext_base", 85.364, 224, "MIT"),
        ("keras/convnext_base.notop", None, 224, "MIT"),
        ("convnextv2_huge.fcmae_ft_in22k_in1k_512", 88.9, 512, "CC-BY-NC-4.0"),
        ("convnext_base.dinov3_lvd1689m", None, 224, "DINOv3 License"),
        ("dinov3/convnext_large.lvd1689m", None, 224, "DINOv3 License"),
        ("test_convnext.r160_in1k", 47.77, 160, "Apache-2.0"),
    ],
)
def test_known_entries(name, top1, input_size, licence):
    entry = CATALOG[name]
    assert (entry.top1, entry.input_size, entry.licence) == (top1, input_size, licence)


def test_timms_test_networks_take_images_around_one_half():
    assert CATALOG["test_convnext3.r160_in1k"].mean == CATALOG["test_convnext3.r160_in1k"].std == (0.5, 0.5, 0.5)


def test_metas_file_of_dinov3_brings_its_license():
    entry = entry_of_file(Path("dinov3_convnext_tiny_pretrain_lvd1689m-21b726bb.pth"))
    assert entry is CATALOG["dinov3/convnext_tiny.lvd1689m"]
    assert (entry.licence, entry.sha256) == ("DINOv3 License", "21b726bb")


def test_a_file_is_found_by_its_published_or_its_cached_name():
    by_url = entry_of_file(Path("somewhere/convnext_tiny-983f1562.pth"))
    assert (
        by_url is entry_of_file(Path("convnext_tiny.in1k_torchvision.pth")) is CATALOG["convnext_tiny.in1k_torchvision"]
    )
    assert entry_of_file(Path("model.safetensors")) is None


def test_names_are_downloaded_files_are_taken_and_others_are_refused(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(
        catalog, "download", lambda *entry, kind: asked.append((*entry, kind)) or tmp_path / "downloaded"
    )
    assert find_weights("keras/convnext_base") == tmp_path / "downloaded"
    entry = CATALOG["keras/convnext_base"]
    assert asked == [("keras/convnext_base", entry.url, "keras-convnext_base.h5", f"sha256:{entry.sha256}", "weights")]
    (tmp_path / "mine.pth").touch()
    assert find_weights(tmp_path / "mine.pth") == tmp_path / "mine.pth"
    with pytest.raises(DataError, match=r"^convnext_tiny\.fb_in1: .*\bconvnext_tiny\.fb_in1k\b"):
        find_weights("convnext_tiny.fb_in1")
