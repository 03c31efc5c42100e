"""Masks that lie beside their images: read as images, they would be trained on as cells of the class."""

import logging
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath

from bloodcell_jax.config import DataConfig
from bloodcell_jax.data.file_trees import printable
from bloodcell_jax.errors import DataError

logger = logging.getLogger(__name__)

# Ends of the names of masks that lie beside their images: 001.png and 001_mask.png.
MASK_ENDS = ("mask", "masks", "seg", "segmentation", "label", "gt")


def check_no_masks(paths: Sequence[PurePosixPath], source: str, config: DataConfig) -> None:
    """Refuse a source in which images have a namesake that may be their mask, not a cell.

    These are two suffixes of most names, or an end such as `_mask` of any. Whoever sets `data.include` has said which
    files are images, and is only told of the ends.
    """
    suffixes = defaultdict(set)
    for path in paths:
        suffixes[path.parent / path.stem].add(path.suffix)
    doubled = sum(len(found) > 1 for found in suffixes.values())
    if 2 * doubled > len(suffixes):
        counts = Counter(path.suffix.lower() for path in paths).most_common()
        named = ", ".join(f"{suffix}: {count:,}" for suffix, count in counts)
        # Patterns know small letters from capitals.
        spelled = sorted({path.suffix for path in paths if path.suffix.lower() == counts[0][0]})
        raise DataError(
            f"{source}: {doubled:,} of {len(suffixes):,} names occur with two suffixes ({named}); are some of them "
            f"masks? Say which are images, such as data.include='{','.join(f'*{suffix}' for suffix in spelled)}'"
        )
    if doubled:
        logger.warning("%s: %d names occur with two suffixes; is one of them a mask?", source, doubled)
    masks = [path for path in suffixes if _image_of_mask(path) in suffixes]
    if not masks:
        return
    found = (
        f"{source}: {len(masks):,} of {len(suffixes):,} names are those of another image with an end such as in "
        f"{printable(masks[0])}; if these are masks, leave them out: data.exclude='*{_mask_end(masks[0])}.*'"
    )
    if not config.include:
        raise DataError(f"{found}. If they are cells: data.include='*'")
    logger.warning("%s", found)


def _mask_end(path: PurePosixPath) -> str:
    """Return the end of a name that may be that of a mask, such as `_mask`; empty if it has none."""
    stem = path.name.lower()
    ends = [f"{sign}{word}" for sign in "_- ." for word in MASK_ENDS]
    return next((path.name[-len(end) :] for end in ends if stem.endswith(end) and len(stem) > len(end)), "")


def _image_of_mask(path: PurePosixPath) -> PurePosixPath | None:
    end = _mask_end(path)
    return path.with_name(path.name.removesuffix(end)) if end else None
