"""What a user names for results is never an input, and a device or pipe is written to, not replaced."""

import csv
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bloodcell_jax.errors import DataError, MachineError, UsageError
from bloodcell_jax.workdir import output_files
from bloodcell_jax.workdir.output_files import check_folder, check_unlike, csv_writer, open_output, read_csv


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("mine")
    return path


@pytest.mark.parametrize("way", ["path", "symlink", "hard link", "dots"])
def test_an_output_that_is_an_input_is_refused(mine, tmp_path, way):
    other = tmp_path / "other"
    if way == "symlink":
        other.symlink_to(mine)
    elif way == "hard link":
        os.link(mine, other)
    else:
        other = mine if way == "path" else tmp_path / "x" / ".." / "mine.csv"
        (tmp_path / "x").mkdir()
    with pytest.raises(UsageError, match=rf"--output={other}: .*mine\.csv"):
        check_unlike(other, [tmp_path / "absent", mine])
    check_unlike(tmp_path / "new", [mine])


def test_a_folder_for_results_lies_outside_what_is_read(tmp_path, mine):
    (tmp_path / "cells" / "red").mkdir(parents=True)
    source = f"folder:{tmp_path / 'cells'}"
    for output in ("cells", "cells/red", "cells/new"):
        with pytest.raises(UsageError, match=r"lies in the source"):
            check_folder(tmp_path / output, [], source)
    (tmp_path / "link").symlink_to(tmp_path / "cells")
    with pytest.raises(UsageError, match=r"lies in the source"):
        check_folder(tmp_path / "link" / "new", [], source)
    with pytest.raises(UsageError, match=r"is a file"):
        check_folder(mine, [], source)
    with pytest.raises(UsageError, match=r"is the input"):
        check_folder(tmp_path, [mine], f"csv:{mine}")
    check_folder(tmp_path / "results", [mine.with_name("new")], source)


def test_a_link_is_followed_and_stays(mine, tmp_path):
    (tmp_path / "link").symlink_to(mine)
    with open_output(tmp_path / "link") as file:
        file.write("new")
    assert (tmp_path / "link").is_symlink()
    assert mine.read_text() == "new"


def test_a_file_is_whole_or_as_it_was(mine, tmp_path):
    (tmp_path / "mine.csv.tmp").write_text("another program's")

    def fail():
        with open_output(mine) as file:
            file.write("half")
            raise DataError("enough")

    with pytest.raises(DataError, match="enough"):
        fail()
    assert mine.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.csv", "mine.csv.tmp"]


def test_a_pipe_is_written_to_and_stays(tmp_path):
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Timer(0.3, lambda: read.append(pipe.read_bytes()))  # It may come later than the result.
    reader.start()
    with open_output(pipe) as file:
        file.write("ü\r\n")
    reader.join(10)
    assert read == ["ü\r\n".encode()]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_pipe_that_nobody_reads_is_no_hang(tmp_path, monkeypatch):
    monkeypatch.setattr(output_files, "_READER_SECONDS", 0.2)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MachineError, match=r"pipe: nobody reads"), open_output(tmp_path / "pipe") as file:
        file.write("x")


def test_devices_are_written_to_and_stay():
    before = {name: os.stat(name).st_rdev for name in ("/dev/null", "/dev/full")}
    with open_output(Path("/dev/null")) as file:
        file.write("x")
    full = r"/dev/full: cannot be written \(No space left"
    with pytest.raises(MachineError, match=full), open_output(Path("/dev/full")) as file:
        file.write("x")
    assert {name: os.stat(name).st_rdev for name in before} == before


WRITE = """
import sys
from pathlib import Path
from bloodcell_jax.workdir.output_files import is_stdout, open_output
path = Path(sys.argv[1])
with open_output(path) as file:
    file.write("a,b\\n")
print("done", file=sys.stderr if is_stdout(path) else sys.stdout)
"""


@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_standard_output_gets_the_result_alone(tmp_path, kind):
    """As `--output=/dev/stdout | gzip` and `--output=/dev/stdout > cells.csv` do."""
    with (tmp_path / "out").open("w") as file:
        stdout = file if kind == "file" else subprocess.PIPE
        process = subprocess.run(
            [sys.executable, "-c", WRITE, "/dev/stdout"], stdout=stdout, stderr=subprocess.PIPE, check=True
        )
    assert (process.stdout if kind == "pipe" else (tmp_path / "out").read_bytes()) == b"a,b\n"
    assert process.stderr == b"done\n"
    assert Path("/dev/stdout").is_symlink()


def test_cells_are_read_as_they_were_written(tmp_path):
    row = ["a\rb", "c\nd", 'e"f', "g,h", "\x1b", "cell-\udce9"]
    with open_output(tmp_path / "a.csv") as file:
        csv_writer(file).writerow(row)
        csv_writer(file).writerow(["x"])
    content = (tmp_path / "a.csv").read_bytes()
    assert content.endswith(b"\nx\n")
    assert b"\r\n" not in content
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        assert list(csv.reader(file)) == [row, ["x"]]


def test_a_table_of_another_program_is_named_with_its_line(tmp_path):
    path = tmp_path / "a.csv"
    for content in (b"h\n1\nx\n", b"h\n1\n\0x\n", b"h\n1\n" + b"x" * 200_000):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.csv, line 3: "):
            read_csv(path, lambda header, row: int(row[0]))
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DataError, match=r"a\.csv: a pipe"):
        read_csv(path, lambda header, row: row)
