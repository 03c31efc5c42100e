"""Published weights by name: their addresses, their licenses, and the accuracy that they are known to reach.

A name is timm's tag if timm has one; `keras/...` are Keras' own files, `dinov3/...` Meta's files of DINOv3. Top-1 is
the accuracy on ImageNet-1k with a single crop, as the publishers give it.
"""

import difflib
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bloodcell_jax.download import download
from bloodcell_jax.errors import DataError
from bloodcell_jax.pretrained import SHIPPED
from bloodcell_jax.weights.info import IMAGENET_MEAN, IMAGENET_STD, MODEL_NAME
from bloodcell_jax.weights.named_models import find_named_model
from bloodcell_jax.weights.parts import split_part

MIT = "MIT"
APACHE = "Apache-2.0"
BSD = "BSD-3-Clause"
NON_COMMERCIAL = "CC-BY-NC-4.0"
# SPDX has no name for it; https://ai.meta.com/resources/models-and-libraries/dinov3-license
DINOV3 = "DINOv3 License"
NON_COMMERCIAL_LICENSES = frozenset({NON_COMMERCIAL})


# Name, file and top-1.
_Row = tuple[str, str, float | None]


@dataclass(frozen=True)
class CatalogEntry:
    """One published file.

    Attributes:
      name: its name in this catalog.
      url: its address.
      licence: license of the weights, as SPDX names it if it does.
      top1: accuracy on ImageNet-1k in percent; None if the file has no ImageNet-1k head.
      sha256: its hash as published: all digits, the first 8, or none.
      input_size: side in pixels of the images that the weights were last trained on.
      mean: mean per channel of images in [0, 1].
      std: standard deviation per channel of images in [0, 1].
    """

    name: str
    url: str
    licence: str
    top1: float | None
    sha256: str = ""
    input_size: int = 224
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    @property
    def variant(self) -> str:
        """Name of the network."""
        return PurePosixPath(self.name).name.split(".")[0]

    @property
    def file_name(self) -> str:
        """Name of the downloaded file; it is unique in the catalog, unlike the name in the address."""
        return self.name.replace("/", "-") + PurePosixPath(self.url).suffix


def _facebook_v1() -> list[CatalogEntry]:
    """Return the weights of Liu et al. 2022; github.com/facebookresearch/ConvNeXt."""
    rows: list[_Row] = [
        ("tiny.fb_in1k", "tiny_1k_224_ema", 82.1),
        ("small.fb_in1k", "small_1k_224_ema", 83.1),
        ("base.fb_in1k", "base_1k_224_ema", 83.8),
        ("large.fb_in1k", "large_1k_224_ema", 84.3),
        ("base.fb_in1k_384", "base_1k_384", 85.1),
        ("large.fb_in1k_384", "large_1k_384", 85.5),
        ("tiny.fb_in22k_ft_in1k", "tiny_22k_1k_224", 82.9),
        ("small.fb_in22k_ft_in1k", "small_22k_1k_224", 84.6),
        ("base.fb_in22k_ft_in1k", "base_22k_1k_224", 85.8),
        ("large.fb_in22k_ft_in1k", "large_22k_1k_224", 86.6),
        ("xlarge.fb_in22k_ft_in1k", "xlarge_22k_1k_224_ema", 87.0),
        ("tiny.fb_in22k_ft_in1k_384", "tiny_22k_1k_384", 84.1),
        ("small.fb_in22k_ft_in1k_384", "small_22k_1k_384", 85.8),
        ("base.fb_in22k_ft_in1k_384", "base_22k_1k_384", 86.8),
        ("large.fb_in22k_ft_in1k_384", "large_22k_1k_384", 87.5),
        ("xlarge.fb_in22k_ft_in1k_384", "xlarge_22k_1k_384_ema", 87.8),
    ]
    rows += [(f"{size}.fb_in22k", f"{size}_22k_224", None) for size in ("tiny", "small", "base", "large", "xlarge")]
    address = "https://dl.fbaipublicfiles.com/convnext"
    return [
        CatalogEntry(f"convnext_{name}", f"{address}/convnext_{file}.pth", MIT, top1, input_size=_size_in(name))
        for name, file, top1 in rows
    ]


def _facebook_v2() -> list[CatalogEntry]:
    """Return the weights of Woo et al. 2023; github.com/facebookresearch/ConvNeXt-V2."""
    sizes = ("atto", "femto", "pico", "nano", "tiny", "base", "large", "huge")
    rows: list[_Row] = [(f"{size}.fcmae", f"pt_only/convnextv2_{size}_1k_224_fcmae", None) for size in sizes]
    for size, top1 in zip(sizes, (76.7, 78.5, 80.3, 81.9, 83.0, 84.9, 85.8, 86.3), strict=True):
        rows.append((f"{size}.fcmae_ft_in1k", f"im1k/convnextv2_{size}_1k_224_ema", top1))
    for size, top1 in zip(("nano", "tiny", "base", "large"), (82.1, 83.9, 86.8, 87.3), strict=True):
        rows.append((f"{size}.fcmae_ft_in22k_in1k", f"im22k/convnextv2_{size}_22k_224_ema", top1))
    for size, top1 in zip(("nano", "tiny", "base", "large", "huge"), (83.4, 85.1, 87.7, 88.2, 88.7), strict=True):
        rows.append((f"{size}.fcmae_ft_in22k_in1k_384", f"im22k/convnextv2_{size}_22k_384_ema", top1))
    rows.append(("huge.fcmae_ft_in22k_in1k_512", "im22k/convnextv2_huge_22k_512_ema", 88.9))
    address = "https://dl.fbaipublicfiles.com/convnext/convnextv2"
    return [
        CatalogEntry(f"convnextv2_{name}", f"{address}/{file}.pt", NON_COMMERCIAL, top1, input_size=_size_in(name))
        for name, file, top1 in rows
    ]


def _timm() -> list[CatalogEntry]:
    """Return the weights that Ross Wightman trained; github.com/huggingface/pytorch-image-models."""
    releases = "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-rsb-weights"
    files = [
        ("atto.d2_in1k", "atto_d2-01bb0f51", 75.672),
        ("atto_ols.a2_in1k", "atto_ols_a2-78d1c8f3", 75.902),
        ("femto.d1_in1k", "femto_d1-d71d5b4c", 77.498),
        ("femto_ols.d1_in1k", "femto_ols_d1-246bf2ed", 77.852),
        ("pico.d1_in1k", "pico_d1-10ad7f0d", 79.516),
        ("pico_ols.d1_in1k", "pico_ols_d1-611f0ca7", 79.542),
        ("nano.d1h_in1k", "nano_d1h-7eb4bdea", 80.762),
        ("nano_ols.d1h_in1k", "nano_ols_d1h-ae424a9a", 80.906),
        ("tiny_hnf.a2h_in1k", "tiny_hnf_a2h-ab7e9df2", 82.230),
    ]
    hub = [
        ("convnext_nano.in12k_ft_in1k", 82.306),
        ("convnext_tiny.in12k_ft_in1k", 84.192),
        ("convnext_small.in12k_ft_in1k", 85.164),
        ("convnext_nano.in12k", None),
        ("convnext_tiny.in12k", None),
        ("convnext_small.in12k", None),
    ]
    tests = [("test_convnext", 47.77), ("test_convnext2", 53.52), ("test_convnext3", 53.30)]
    half = (0.5, 0.5, 0.5)
    return [
        *(
            CatalogEntry(f"convnext_{name}", f"{releases}/convnext_{file}.pth", APACHE, top1, file[-8:])
            for name, file, top1 in files
        ),
        *(CatalogEntry(name, _hub_url(name), APACHE, top1) for name, top1 in hub),
        *(
            CatalogEntry(
                f"{name}.r160_in1k", _hub_url(f"{name}.r160_in1k"), APACHE, top1, input_size=160, mean=half, std=half
            )
            for name, top1 in tests
        ),
    ]


def _hub_url(tag: str) -> str:
    return f"https://huggingface.co/timm/{tag}/resolve/main/model.safetensors"


def _torchvision() -> list[CatalogEntry]:
    """Return the weights that torchvision trained; they have no license except the code's."""
    rows = [
        ("tiny", "983f1562", 82.520),
        ("small", "0c510722", 83.616),
        ("base", "6075fbad", 84.062),
        ("large", "ea097f82", 84.414),
    ]
    address = "https://download.pytorch.org/models"
    return [
        CatalogEntry(f"convnext_{size}.in1k_torchvision", f"{address}/convnext_{size}-{sha256}.pth", BSD, top1, sha256)
        for size, sha256, top1 in rows
    ]


def _keras() -> list[CatalogEntry]:
    """Return Keras' applications: Facebook's V1 weights, converted; base and larger were trained on 22k first."""
    rows = [
        ("tiny", 81.312, "8ae6e78ce2933352b1ef4008e6dd2f17bc40771563877d156bc6426c7cf503ff"),
        ("small", 82.392, "ce1277d8f1ee5a0ef0e171469089c18f5233860ceaf9b168049cb9263fd7483c"),
        ("base", 85.364, "52cbb006d3dadd03f6e095a8ca1aca47aecdd75acb4bc74bce1f5c695d0086e6"),
        ("large", 86.36, "070c5ed9ed289581e477741d3b34beffa920db8cf590899d6d2c67fba2a198a6"),
        ("xlarge", 86.732, "c1f5ccab661354fc3a79a10fa99af82f0fbf10ec65cb894a3ae0815f17a889ee"),
        ("tiny_notop", None, "d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1"),
        ("small_notop", None, "6fc8009faa2f00c1c1dfce59feea9b0745eb260a7dd11bee65c8e20843da6eab"),
        ("base_notop", None, "40a20c5548a5e9202f69735ecc06c990e6b7c9d2de39f0361e27baeb24cb7c45"),
        ("large_notop", None, "96f02b6f0753d4f543261bc9d09bed650f24dd6bc02ddde3066135b63d23a1cd"),
        ("xlarge_notop", None, "de3f8a54174130e0cecdc71583354753d557fcf1f4487331558e2a16ba0cfe05"),
    ]
    address = "https://storage.googleapis.com/tensorflow/keras-applications/convnext"
    return [
        CatalogEntry(f"keras/convnext_{name.replace('_', '.')}", f"{address}/convnext_{name}.h5", MIT, top1, sha256)
        for name, top1, sha256 in rows
    ]


def _dinov3() -> list[CatalogEntry]:
    """Return the ConvNeXts distilled by Siméoni et al. 2025, without a head; github.com/facebookresearch/dinov3.

    timm's files are open, without a published hash; Meta gives addresses of its own only to those who accept the
    license.
    """
    hashes = {"tiny": "21b726bb", "small": "296db49d", "base": "801f2ba9", "large": "61fa432d"}
    address = "https://dl.fbaipublicfiles.com/dinov3/dinov3_convnext"
    entries = []
    for size, digits in hashes.items():
        name = f"convnext_{size}"
        url = f"{address}_{size}/dinov3_{name}_pretrain_lvd1689m-{digits}.pth"
        entries += [
            CatalogEntry(f"{name}.dinov3_lvd1689m", _hub_url(f"{name}.dinov3_lvd1689m"), DINOV3, None),
            CatalogEntry(f"dinov3/{name}.lvd1689m", url, DINOV3, None, digits),
        ]
    return entries


def _size_in(name: str) -> int:
    last = name.split("_")[-1]
    return int(last) if last.isdecimal() else 224


_ENTRIES = (*_facebook_v1(), *_facebook_v2(), *_timm(), *_torchvision(), *_keras(), *_dinov3())
CATALOG = {entry.name: entry for entry in _ENTRIES}


def find_weights(path: Path | str) -> Path:
    """Return the file, the file of a run's model, or the file of a name: shipped, or downloaded once.

    Args:
      path: a file, the workdir of a finished run, the name of a shipped model, hf:OWNER/NAME[@REVISION], or a name in
        the catalog.

    Raises:
      UsageError: a file has the name of a shipped model, or a name on the hub is none.
      DataError: there is neither such a file nor such a name, or the folder holds no model, or the download failed.
    """
    if named := find_named_model(path):
        return named
    path = Path(os.path.expanduser(path))
    if os.path.isdir(path):
        if not os.path.exists(path / MODEL_NAME):
            raise DataError(
                f"{path}: a folder without {MODEL_NAME}; name a weights file, or the workdir of a finished run"
            )
        return path / MODEL_NAME
    if os.path.exists(path):
        return path
    name = path.as_posix()
    if name in CATALOG:
        entry = CATALOG[name]
        known_hash = f"sha256:{entry.sha256}" if entry.sha256 else ""
        return download(entry.name, entry.url, entry.file_name, known_hash, kind="weights")
    close = difflib.get_close_matches(name, [*SHIPPED, *CATALOG], n=3)
    hint = f"did you mean {', '.join(close)}" if close else "names look like convnext_tiny.fb_in1k"
    raise DataError(f"{name}: no such file, and no published weights with this name; {hint}")


def find_part(source: Path | str) -> tuple[Path, str | None]:
    """Return the file of `source`, see `find_weights`, and the part that it asks for by `FILE#PART`; None: no part."""
    name, part = split_part(source)
    return find_weights(name), part


def entry_of_file(path: Path) -> CatalogEntry | None:
    """Return the entry of a file by its name, the published one or that of `find_weights`; None if it is not unique."""
    # Many files of the hub have the name model.safetensors, which says nothing.
    entries = [e for e in CATALOG.values() if path.name in (e.file_name, PurePosixPath(e.url).name)]
    return entries[0] if len(entries) == 1 else None
