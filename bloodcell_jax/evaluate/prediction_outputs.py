"""What `predict` writes: the file of its rows and its pages, none of which is an input or another one of them."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bloodcell_jax.data.decoded_files import is_image
from bloodcell_jax.errors import UsageError
from bloodcell_jax.evaluate.prediction_rows import check_format
from bloodcell_jax.workdir.output_files import check_unlike, is_stream


@dataclass(frozen=True)
class PredictionOutputs:
    """The files that `predict` writes.

    Attributes:
      rows: CSV, or JSON lines by its suffix.
      page: the gallery page; None: there is none.
      review_size: images on the review page; 0: there is none.
    """

    rows: Path
    page: Path | None = None
    review_size: int = 0

    @property
    def review(self) -> Path | None:
        """The review page, which is named after the rows; None: there is none."""
        return self.rows.with_name(f"{self.rows.stem}.review.html") if self.review_size else None

    @property
    def by_flag(self) -> dict[str, Path]:
        """All files, by what messages call them."""
        named = {f"--output={self.rows}": self.rows}
        if self.page is not None:
            named[f"--page={self.page}"] = self.page
        if self.review is not None:
            named[f"--review={self.review_size}: its page {self.review}"] = self.review
        return named

    def check(self) -> None:
        """Check the names, before anything is read.

        Raises:
          UsageError: one is a folder, named like an image or another format, or the same as another one; or the rows go
            to a device or pipe, after which no page can be named.
        """
        for flag, path in self.by_flag.items():
            suffix, kind = (".csv", "CSV") if path == self.rows else (".html", "page")
            if os.path.isdir(path):
                raise UsageError(f"{flag}: is a folder; name a file, as in {path / f'cells{suffix}'}")
            if is_image(PurePosixPath(path.name)):
                raise UsageError(f"{flag}: is named like an image; name a {kind}, as in {path.with_suffix(suffix)}")
        check_format(self.rows)
        if self.review_size and is_stream(self.rows):
            raise UsageError(
                f"--review={self.review_size}: its page is named after the file of the rows, and --output={self.rows} "
                "is a device or pipe; name a file"
            )
        seen: dict[str, str] = {}
        for flag, path in self.by_flag.items():
            other = seen.setdefault(os.path.realpath(path), flag)
            if other != flag:
                raise UsageError(f"{flag}: is {other} as well; name another file")

    def check_unlike(self, inputs: Iterable[str | os.PathLike]) -> None:
        """Check that no file is one of the inputs, by any path or link.

        Raises:
          UsageError: one is; names the input.
        """
        inputs = list(inputs)
        for flag, path in self.by_flag.items():
            check_unlike(path, inputs, flag)
