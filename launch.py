"""Train and use single-cell classifiers: `python launch.py VERB --help`.

The same as the console script `bloodcell`.
"""

import sys

from bloodcell_jax.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv))
