"""Files changed at random, read by this library's own parsers: they are read, or refused in one line."""

import contextlib
import io
import json
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
from PIL import Image

from bloodcell_jax.data.cleaning import Removal, clean_file, remove_rows
from bloodcell_jax.data.dataset import Dataset, index_ids
from bloodcell_jax.data.sources import load_source
from bloodcell_jax.errors import DataError
from bloodcell_jax.weights.files import read_file
from bloodcell_jax.weights.info import info_to_dict, variant_info
from bloodcell_jax.weights.layouts import recognize
from bloodcell_jax.weights.model_file import RUN_KEY, read_model_record
from bloodcell_jax.weights.safetensors_file import INFO_KEY
from bloodcell_jax.weights.structure import infer_variant

# Of each parser under `make test-fuzz`: a few minutes.
INPUTS = int(os.environ.get("FUZZ_INPUTS", 200_000))
SIZE = 4
IMAGES = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3), dtype=np.uint8)
LABELS = np.arange(4) % 2
DATA = Dataset(IMAGES, LABELS.astype(np.int32), ("a", "b"), index_ids(4), "npz:cells.npz")


def encoded(save, value):
    buffer = io.BytesIO()
    save(buffer, value)
    return buffer.getvalue()


PNGS = [encoded(lambda file, array: Image.fromarray(array).save(file, "png"), image) for image in IMAGES]


def zipped(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def arrays(**named):
    return {f"{name}.npy": encoded(np.save, array) for name, array in named.items()}


def source(kind, **options):
    return lambda path: load_source(f"{kind}:{path}", image_size=SIZE, skip_bad=True, **options)


def npz(tmp_path):
    return source("npz"), "cells.npz", [arrays(images=IMAGES, labels=LABELS)], zipped


def medmnist(tmp_path):
    parts = {f"{split}_images": IMAGES for split in ("train", "val", "test")}
    labels = {f"{split}_labels": LABELS[:, None] for split in ("train", "val", "test")}
    return source("medmnist"), "m.npz", [arrays(**parts, **labels)], zipped


def archive(tmp_path):
    return source("zip"), "cells.zip", [{f"{'ab'[i % 2]}/{i}.png": png for i, png in enumerate(PNGS)}], zipped


def table(tmp_path, name, seeds):
    for folder in "ab":
        (tmp_path / folder).mkdir()
    for i, png in enumerate(PNGS):
        (tmp_path / "ab"[i % 2] / f"{i}.png").write_bytes(png)
    return source("csv"), name, seeds, None


ROWS = [("a/0.png", "x", "train", "1"), ("b/1.png", "y", "val", "2"), ("a/2.png", "x", "test", "3")]


def csv(tmp_path):
    lines = ["file,label,split,group", *map(",".join, ROWS)]
    quoted = "\n".join(f'"{line}"'.replace(",", '";"') for line in lines)
    return table(tmp_path, "t.csv", ["\n".join(lines).encode(), quoted.encode(), "\r\n".join(lines).encode("utf-16")])


def json_lines(tmp_path):
    rows = [dict(zip(("file", "label", "split", "group"), row, strict=True)) for row in ROWS]
    return table(tmp_path, "t.jsonl", ["\n".join(map(json.dumps, rows)).encode()])


def clean_list(tmp_path):
    content = clean_file(DATA, DATA.sha256(), [Removal(1, "1", "duplicate", "of 0"), Removal(3, "3", "planted", "x")])
    return lambda path: remove_rows(DATA, path), "clean.json", [json.dumps(content).encode()], None


def safetensors_file(members):
    return struct.pack("<Q", len(members["header"])) + members["header"] + members["data"]


def with_header(tensors, metadata):
    header, data = {"__metadata__": metadata}, b""
    for name, array in tensors.items():
        header[name] = {"dtype": "F32", "shape": array.shape, "data_offsets": [len(data), len(data) + array.nbytes]}
        data += array.tobytes()
    return {"header": json.dumps(header).encode(), "data": data}


def vector(*shape):
    return np.zeros(shape, np.float32)


NETWORK = {
    "stem.0.weight": vector(2, 3, 1, 1),
    "stem.1.weight": vector(2),
    "stages.0.blocks.0.conv_dw.weight": vector(2, 1, 3, 3),
    "stages.0.blocks.0.norm.bias": vector(2),
    "head.fc.bias": vector(3),
    **{f"stages.{i}.downsample.1.bias": vector(2) for i in (1, 2, 3)},
    **{f"stages.{i}.blocks.0.conv_dw.weight": vector(2, 1, 3, 3) for i in (1, 2, 3)},
}


def read_network(path):
    """Recognize a network, and look for its variant; the seed's is none, because all published ones are large."""
    weights = recognize(path, read_file(path))
    with contextlib.suppress(DataError):
        infer_variant(path, weights)


def read_tensors(path):
    for tensor in read_file(path).tensors.values():
        np.array(tensor).sum()


def safetensors(tmp_path):
    info = json.dumps(info_to_dict(variant_info("convnext_tiny", 3)))
    seeds = [with_header({"w": vector(2, 2)}, {INFO_KEY: info}), with_header({"w": vector(2)}, {"a": "b"})]
    return read_tensors, "w.safetensors", seeds, safetensors_file


def network(tmp_path):
    return read_network, "n.safetensors", [with_header(NETWORK, {})], safetensors_file


def record(tmp_path):
    record = {
        "config": {
            "data": {"image_size": 32, "class_names": ["a", "b"]},
            "model": {"variant": "convnext_tiny", "num_classes": 2},
        },
        "step": 3,
        "metrics": {"accuracy": 0.5},
        "version": "1",
        "view": {"shorter_side": 3, "side": 2},
    }
    seeds = [{"record": json.dumps(record).encode()}]

    def pack(members):
        text = members["record"].decode("utf-8", "surrogateescape")
        return safetensors_file(with_header({"w": vector(2)}, {RUN_KEY: text}))

    return read_model_record, "m.safetensors", seeds, pack


def tensor_pickle():
    """Return the pickle of a dict with two tensors and other values, as torch.save writes it."""

    def number(value):
        return pickle.dumps(value, protocol=2)[2:-1]

    storage = b"(X\7\0\0\0storageq\1ctorch\nFloatStorage\nq\2X\1\0\0\0" + b"0X\3\0\0\0cpuq\3K\4tQ"
    hooks = b"ccollections\nOrderedDict\n)R"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\nq\4(" + storage + b"K\0K\2K\2\x86K\2K\1\x86\x89" + hooks + b"tR"
    others = number({"lr": 0.1, "steps": [1, 2, (3, None)], "name": "x", "big": 2**70})
    names = (b"X\1\0\0\0" + letter for letter in (b"w", b"v", b"o"))
    pairs = [name + value for name, value in zip(names, (tensor, tensor, others), strict=True)]
    return b"\x80\2}q\0(" + b"".join(pairs) + b"u."


def torch_zip(tmp_path):
    return read_tensors, "w.pth", [{"w/data.pkl": tensor_pickle(), "w/data/0": bytes(16), "w/version": b"3"}], zipped


def torch_legacy(tmp_path):
    system = {"little_endian": True, "protocol_version": 1001}
    head = b"".join(pickle.dumps(value, protocol=2) for value in (0x1950A86A20F9469CFC6C, 1001, system))
    keys = pickle.dumps(["0"], protocol=2)
    return read_tensors, "w.pth", [head + tensor_pickle() + keys + struct.pack("<q", 4) + bytes(16)], None


# Parser -> inputs in the ordinary suite. Those that open archives or decode images take a millisecond or more.
PARSERS = {
    npz: 1000,
    medmnist: 500,
    archive: 500,
    csv: 1000,
    json_lines: 1000,
    clean_list: 2000,
    safetensors: 2000,
    network: 2000,
    record: 1000,
    torch_zip: 2000,
    torch_legacy: 2000,
}
each_parser = pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.__name__)


@each_parser
def test_a_changed_file_is_read_or_refused_in_one_line(parser, tmp_path, fuzz):
    count = PARSERS[parser]
    assert fuzz(*parser(tmp_path), count=count) == count


@pytest.mark.fuzz
@pytest.mark.timeout(0)
@each_parser
def test_hundreds_of_thousands_of_changed_files(parser, tmp_path, fuzz):
    assert fuzz(*parser(tmp_path), count=INPUTS) == INPUTS
