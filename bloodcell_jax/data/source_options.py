"""The options that every kind of data source is read with."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """How a source is read; a kind of source ignores the options that mean nothing to it.

    Attributes:
      image_size: side of every image in pixels.
      crop: pixels; larger image files are center-cropped to it. None: every file is cropped to its centered square.
      class_names: names in label order; empty: the source's own.
      skip_bad: leave out image files that cannot be read; otherwise they are an error.
      data_dir: folder of prepared datasets and of local copies of MedMNIST; None: the default place.
      include: glob patterns, joined by commas, of the image files to read; None: all.
      exclude: glob patterns of files and folders to leave out.
      class_level: level of the class folders, 1 for the first folders of the source; None: recognized.
      split_folders: folders that are splits, such as `train=Train,test=TestA`; None: those with usual names.
    """

    image_size: int
    crop: int | None
    class_names: tuple[str, ...]
    skip_bad: bool
    data_dir: str | None
    include: str | None = None
    exclude: str | None = None
    class_level: int | None = None
    split_folders: str | None = None
