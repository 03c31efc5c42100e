"""What setup.cfg packages is what git holds: a template or package that it forgets is missed in a wheel only."""

import configparser
import subprocess
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[1]


def values(section, key):
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser[section][key].replace(",", " ").split()


def files_in_git():
    """Return the files of the package, those of configs/ at their place in it."""
    try:
        done = subprocess.run(
            ["git", "ls-files", "bloodcell_jax", "configs"], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs a checkout")
    names = done.stdout.splitlines()
    return [PurePosixPath("bloodcell_jax" if name.startswith("configs/") else "", name) for name in names]


def test_every_file_in_git_is_packaged():
    packages = values("options", "packages")
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    data = {package: values("options.package_data", package) for package in parser["options.package_data"]}
    files = files_in_git()
    assert len(files) > 100
    missed = [
        str(file)
        for file in files
        if (package := ".".join(file.parent.parts)) not in packages
        or (file.suffix != ".py" and not any(fnmatch(file.name, pattern) for pattern in data.get(package, ())))
    ]
    assert not missed
    assert {".".join(file.parent.parts) for file in files if file.suffix == ".py"} == set(packages)
