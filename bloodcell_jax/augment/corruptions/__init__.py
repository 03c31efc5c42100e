"""Corruptions that robustness is tested with. Training never uses this folder.

A corruption is a function (key, image, *severity) -> image of one image [h, w, 3], float32 in [0, 1]. The numbers of
the severity may be traced, so all severities share one compiled program. Lengths are parts of the image's side:
published suites state them in pixels of 224 px images.
"""
