"""Patterns of paths: which files of a source are read."""

import fnmatch
import logging
from collections.abc import Sequence
from pathlib import PurePosixPath

from bloodcell_jax.config import DataConfig
from bloodcell_jax.errors import DataError

logger = logging.getLogger(__name__)


def select_paths(paths: Sequence[PurePosixPath], source: str, config: DataConfig) -> list[PurePosixPath]:
    """Return the paths that `include` and `exclude` leave; the log says how many they leave out."""
    include, exclude = patterns_of(config.include), patterns_of(config.exclude)
    for pattern in (*include, *exclude):
        if not any(matches_any(path, [pattern]) for path in paths):
            logger.warning("%s: the pattern %r of data.include or data.exclude matches no image", source, pattern)
    kept = [p for p in paths if (not include or matches_any(p, include)) and not matches_any(p, exclude)]
    if len(kept) < len(paths):
        logger.info(
            "%s: data.include and data.exclude leave out %s of %s images",
            source,
            f"{len(paths) - len(kept):,}",
            f"{len(paths):,}",
        )
    if not kept:
        raise DataError(
            f"{source}: data.include={config.include} and data.exclude={config.exclude} leave none of "
            f"{len(paths):,} images; patterns such as '*.bmp' or 'unlabeled/**' match paths inside the source"
        )
    return kept


def patterns_of(text: str | None) -> list[str]:
    """Return the patterns of `data.include` or `data.exclude`, which commas join."""
    return [pattern.strip() for pattern in text.split(",") if pattern.strip()] if text else []


def matches_any(path: PurePosixPath, patterns: list[str]) -> bool:
    """Return whether a path, its name or a folder above it matches a pattern; `*` matches `/`, `**/` also nothing."""
    if not patterns:
        return False
    names = [str(path), path.name, *map(str, path.parents)]
    below = {pattern.removesuffix("/**") for pattern in patterns}
    anywhere = below | {pattern.removeprefix("**/") for pattern in below}
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in anywhere for name in names)
