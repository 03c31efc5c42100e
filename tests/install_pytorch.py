"""Install PyTorch and timm, which parity tests compare with, into the environment of this Python.

    python tests/install_pytorch.py [--cuda]

PyTorch for x86-64 Linux depends on CUDA's libraries, which are gigabytes, and no test needs them. Without `--cuda`,
PyTorch is installed only if pip resolves it without them, or if it is there already, as a CPU build of any version.
Where it is absent, the tests that need it skip and say so.
"""

import argparse
import importlib.util
import json
import subprocess
import sys

TORCH = "torch==2.13.0"
TIMM = "timm==1.0.31"
_PIP = (sys.executable, "-m", "pip", "install", "--quiet")
_CUDA = ("nvidia-", "cuda-")


def packages_that_pip_would_install(requirement: str) -> list[str]:
    """Return the names; pip reads metadata alone, in seconds.

    Raises:
      subprocess.CalledProcessError: pip cannot resolve the requirement.
    """
    report = subprocess.run([*_PIP, "--dry-run", "--report=-", requirement], check=True, stdout=subprocess.PIPE).stdout
    return [item["metadata"]["name"].lower() for item in json.loads(report)["install"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuda", action="store_true", help="install PyTorch even if it brings CUDA's libraries")
    if parser.parse_args().cuda:
        subprocess.run([*_PIP, TORCH], check=True)
    elif importlib.util.find_spec("torch") is None:
        cuda = [name for name in packages_that_pip_would_install(TORCH) if name.startswith(_CUDA)]
        if not cuda:
            subprocess.run([*_PIP, TORCH], check=True)
        else:
            print(
                f"{TORCH} brings {len(cuda)} packages of CUDA here and is not installed: tests that compare with it "
                "skip. Install its CPU build into this environment, or pass CUDA=yes to make."
            )
    # timm depends on torchvision, and by it on CUDA. Its models need torch alone, and the tests stand in for the rest.
    subprocess.run([*_PIP, "--no-deps", TIMM], check=True)


if __name__ == "__main__":
    main()
