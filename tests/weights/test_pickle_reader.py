"""A pickle is a program, and this reader runs no part of it."""

import argparse
import collections
import contextlib
import os
import pickle
import pickletools
import random
import subprocess

import numpy as np
import pytest

from bloodcell_jax.weights import pickle_reader
from bloodcell_jax.weights.pickle_reader import read_pickle
from bloodcell_jax.weights.pickled_values import Name, PickleError, Record, Storage


class Calls:
    """An object that is pickled as the call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(5))
@pytest.mark.parametrize(
    ("function", "name"),
    [
        (os.system, "posix.system"),
        (subprocess.Popen, "(subprocess|commands).Popen"),
        (eval, "builtins.eval"),
        (exec, "builtins.exec"),
        (getattr, "builtins.getattr"),
        (open, "io.open"),
        (__import__, "builtins.__import__"),
    ],
)
def test_a_call_is_refused_by_name_and_not_made(function, name, protocol, tmp_path):
    marker = tmp_path / "executed"
    data = pickle.dumps({"weight": Calls(function, f"touch {marker}")}, protocol)
    with pytest.raises(PickleError, match=name.replace("builtins", "(builtins|__builtin__)")):
        read_pickle(data)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", "os.system"),  # GLOBAL, REDUCE
        (b"cos\nsystem\n.", "os.system"),  # named, never called
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.", "os.system"),  # STACK_GLOBAL
        (b"\x80\x02cos\nsystem\nU\x04true\x85\x81.", "os.system"),  # NEWOBJ
        (b"(S'true'\nios\nsystem\n.", "os.system"),  # INST
        (b"(cos\nsystem\nS'true'\no.", "os.system"),  # OBJ
        (b"ccollections\nOrderedDict\n)R(S'__reduce__'\ncos\nsystem\ndb.", "os.system"),  # BUILD
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"Pstorage\n.", "PERSID"),
        (b"\x80\x02(iargparse\nNamespace\n.", "argparse.Namespace by INST"),
        (b"]}b.", "sets the state"),
        (b"\x80\x05\x96\x01\x00\x00\x00\x00\x00\x00\x00a.", "BYTEARRAY8"),
    ],
)
def test_every_way_to_a_callable_is_closed(data, message):
    with pytest.raises(PickleError, match=message):
        read_pickle(data)


FLOATS = object()


def persistent(description):
    """Return the pickle of a persistent id; FLOATS in the description stands for the class of float32 storages."""
    parts = [b"ctorch\nFloatStorage\n" if part is FLOATS else pickle.dumps(part, 2)[2:-1] for part in description]
    return b"\x80\x02(" + b"".join(parts) + b"tQ."


def test_a_storage_is_described():
    storage = Storage("0", np.dtype(np.float32), 4)
    for rest in ((), (None,)):
        pickle = read_pickle(persistent(("storage", FLOATS, "0", "cpu", 4, *rest)))
        assert pickle.value == storage
        assert pickle.storages == {"0": storage}


@pytest.mark.parametrize(
    "description",
    [
        (),
        ("storage",),
        ("module", FLOATS, "0", "cpu", 4),
        ("storage", "FloatStorage", "0", "cpu", 4),
        ("storage", None, "0", "cpu", 4),
        ("storage", FLOATS, "0", "cpu", -1),
        ("storage", FLOATS, "0", "cpu", 2**80),
        ("storage", FLOATS, "0", "cpu", "4"),
        ("storage", FLOATS, 0, "cpu", 4),
        ("storage", FLOATS, "../0", "cpu", 4),
        ("storage", FLOATS, "0", "cpu", 4, ("0", 0, 4)),  # a view of another storage, as PyTorch before 0.4 wrote it
    ],
)
def test_malformed_storages_are_refused(description):
    with pytest.raises(PickleError, match="malformed storage"):
        read_pickle(persistent(description))


def test_a_persistent_id_that_is_no_tuple_or_a_callable_is_refused():
    for data in (b"\x80\x02X\x07\x00\x00\x00storageQ.", b"\x80\x02K\x07Q.", b"\x80\x02Q."):
        with pytest.raises(PickleError, match="malformed"):
            read_pickle(data)
    with pytest.raises(PickleError, match=r"os\.system"):
        read_pickle(persistent(("storage", FLOATS, "0", "cpu", 4))[:-3] + b"cos\nsystem\ntQ.")


def test_two_descriptions_of_one_storage_are_refused():
    one, two = [persistent(("storage", FLOATS, "0", "cpu", length))[2:-1] for length in (4, 5)]
    with pytest.raises(PickleError, match=r"\btwo .*\bstorage 0\b"):
        read_pickle(b"\x80\x02" + one + two + b"\x86.")


def tensor(arguments):
    """Return the pickle of a call of _rebuild_tensor_v2 with a storage of 4 floats and these further arguments."""
    storage = b"X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"
    body = b"".join(pickle.dumps(argument, 2)[2:-1] for argument in arguments)
    return b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((" + storage + body + b"tR."


def test_a_tensor_is_a_window_on_its_storage():
    record = read_pickle(tensor((1, (3,), (1,), False, {}))).value
    assert (record.storage.key, record.storage.dtype, record.storage.length) == ("0", np.float32, 4)
    assert (record.offset, record.shape, record.strides) == (1, (3,), (1,))


@pytest.mark.parametrize(
    "arguments",
    [
        (0, (5,), (1,)),  # larger
        (2, (3,), (1,)),  # past the end
        (0, (2, 2), (4, 1)),
        (-1, (2,), (1,)),
        (0, (-2,), (1,)),
        (0, (2,), (-1,)),
        (0, (2, 2), (1,)),  # ranks differ
        (0, (2**62, 2**62), (0, 0)),  # an expanded scalar would be allocated whole
        (0, (1 << 100_000,) * 8, (0,) * 8),
        (0, (1,) * 40, (0,) * 40),
        (0.0, (2,), (1,)),
        (True, (2,), (1,)),
        (0, [2], [1]),
        ("0", (2,), (1,)),
        (0,),
        (),
    ],
)
def test_a_tensor_that_does_not_lie_in_its_storage_is_refused(arguments):
    with pytest.raises(PickleError):
        read_pickle(tensor(arguments))


def test_what_training_programs_store_beside_the_weights_becomes_inert():
    value = {
        "args": argparse.Namespace(lr=4e-3, blr=None, layers=[1, 2]),
        "best": np.float64(82.1),
        "groups": collections.OrderedDict(a=1, b=(2.5, "x", None, True)),
    }
    read = read_pickle(pickle.dumps(value, 2)).value
    assert read["groups"] == {"a": 1, "b": (2.5, "x", None, True)}
    assert isinstance(read["best"], Record)
    assert read["args"] == Record(Name("argparse", "Namespace"), ())


@pytest.mark.parametrize("protocol", range(2, 5))
def test_plain_data_is_read_as_written(protocol):
    value = {"a": [1, -2, 2**40, 2.5, "text", b"bytes", None, True, False], 3: ((), (1,), (1, 2), (1, 2, 3), (1,) * 5)}
    data = pickle.dumps(value, protocol) + b"what follows"
    read = read_pickle(data)
    # Protocol 2 has no bytes: they are a call of _codecs.encode, which stays a record.
    expected_bytes = Record(Name("_codecs", "encode"), ("bytes", "latin1")) if protocol == 2 else b"bytes"
    assert read.value["a"] == [*value["a"][:5], expected_bytes, *value["a"][6:]]
    assert read.value[3] == value[3]
    assert read.length == len(data) - len(b"what follows")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b".",
        b"\x80\x02",
        b"}",
        b"(.",
        b"\x80\x02NN.",
        b"0.",
        b"t.",
        b"(u.",
        b"h\x05.",  # a memo entry that is not there
        b"ccollections\nOrderedDict\n](K\x01K\x02ea\x85R.",  # an OrderedDict made from a list
        b"c" + b"a" * 1000 + b"\nb\n.",  # a name of a thousand letters
        b"cos\x1b[2J\nsystem\n.",  # a name that would clear the terminal
        b"}))s.",  # a tuple as key
        b"}]K\x01s.",  # a list as key
        b"X\xff\xff\xff\x7fabc.",  # claims 2 GiB of text
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x0fabc.",  # claims 1 EiB of bytes
        b"\x8b\xff\xff\xff\x7f\x00.",  # claims a number of 2 GiB
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7fN",  # claims a frame of 8 EiB
        b"I" + b"9" * 10_000 + b"\n.",
    ],
)
def test_malformed_pickles_end_in_their_error(data):
    with pytest.raises(PickleError):
        read_pickle(data)


def test_an_error_does_not_quote_the_file():
    with pytest.raises(PickleError) as error:
        read_pickle(b"S'" + b"a" * 100_000 + b"\n.")
    assert len(str(error.value)) < 200


def test_a_memo_index_of_four_billion_costs_nothing():
    assert read_pickle(b"\x80\x02Nr\xff\xff\xff\xff.").value is None


def test_a_pickle_of_doubling_tuples_is_read_without_expanding_it():
    bomb = b"\x80\x02)" + b"2\x86" * 200  # each a pair of the one before
    assert len(read_pickle(bomb + b".").value) == 2
    for end in (b"}q\x000h\x00N2s.", b"}q\x00h\x00\x86R."):
        with pytest.raises(PickleError):
            read_pickle(bomb + end)


def test_a_longer_pickle_than_the_limit_is_refused(monkeypatch):
    monkeypatch.setattr(pickle_reader, "MAX_PICKLE_BYTES", 1000)
    with pytest.raises(PickleError):
        read_pickle(pickle.dumps(list(range(1000)), 2))


def test_damaged_pickles_end_in_their_error_or_in_data():
    generator = random.Random(0)
    value = {"model": collections.OrderedDict(w=[1, 2, (3, 4)]), "args": argparse.Namespace(a=1), "n": np.float32(1)}
    whole = pickle.dumps(value, 2)
    opcodes = [opcode.code.encode("latin-1") for opcode in pickletools.opcodes]
    for _ in range(3000):
        data = bytearray(whole)
        for _ in range(generator.randint(1, 4)):
            data[generator.randrange(len(data))] = generator.randrange(256)
        place = generator.randrange(len(data))
        data[place:place] = generator.choice(opcodes)
        with contextlib.suppress(PickleError):
            read_pickle(bytes(data[: generator.randint(1, len(data))]))
