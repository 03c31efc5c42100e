"""Only regular files are opened for reading: never a pipe, a device, a socket or a folder."""

import os
import socket

import pytest

from bloodcell_jax.errors import DataError
from bloodcell_jax.regular_files import check_regular_file


@pytest.fixture
def special(tmp_path):
    """Return special files by what they are."""
    os.mkfifo(tmp_path / "pipe.npz")
    (tmp_path / "link.npz").symlink_to("nowhere.npz")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.npz"))
        yield {
            "a pipe": tmp_path / "pipe.npz",
            "a device": "/dev/zero",
            "a socket": tmp_path / "s.npz",
            "a folder": tmp_path,
            "a link to nothing": tmp_path / "link.npz",
            "no such file": tmp_path / "absent.npz",
            "File name too long": tmp_path / ("x" * 300),
            "embedded null": "a\0b",
        }


def test_a_regular_file_or_a_link_to_one_may_be_opened(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("file")
    check_regular_file(tmp_path / "file")
    check_regular_file(tmp_path / "link")


def test_anything_else_is_named_with_what_it_is(special):
    for kind, path in special.items():
        with pytest.raises(DataError, match="here: .*" + kind) as caught:
            check_regular_file(path, "here")
        assert len(str(caught.value).splitlines()) == 1
