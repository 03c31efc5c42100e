"""Train and use single-cell classifiers: `python launch.py VERB --help`.

The same as the console script `bloodcell`.
"""

from bloodcell_jax.cli import console

if __name__ == "__main__":
    console()
