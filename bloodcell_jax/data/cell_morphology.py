"""How the synthetic cells of each class look.

The classes differ in what real ones differ in: the shape and the lobes of the nucleus, how much of the cell the
nucleus fills, the granules, the color of the cytoplasm, and the size.

Lengths are in halves of the image's side; colors are red, green and blue from 0 to 1.
"""

from dataclasses import dataclass

Range = tuple[float, float]
Color = tuple[float, float, float]


@dataclass(frozen=True)
class Morphology:
    """How cells of one class look; values are drawn from a range uniformly.

    Attributes:
      radius: radius of the cell.
      cytoplasm: color of the cytoplasm.
      lobes: probabilities that the nucleus has 0, 1, 2, ... lobes.
      lobe: radius of a lobe as a fraction of the cell's radius.
      nucleus: color of the nucleus.
      spread: radius of the arc that the lobes lie on, as a fraction of the cell's radius.
      indentation: depth of the bay that cuts into a nucleus of one lobe, as a fraction of the lobe's radius.
      granules: probability that a point of the granules' grid is a granule.
      granule_size: width of a granule as a fraction of the image's width.
      granule: color of the granules.
      granules_hide: the granules also lie over the nucleus.
      roughness: how far the cell's outline leaves the ellipse, as a fraction of the radius.
    """

    radius: Range
    cytoplasm: Color
    lobes: tuple[float, ...]
    lobe: Range
    nucleus: Color = (0.27, 0.13, 0.44)
    spread: Range = (0.0, 0.15)
    indentation: Range = (0.0, 0.0)
    granules: float = 0.0
    granule_size: float = 0.03
    granule: Color = (0.45, 0.30, 0.60)
    granules_hide: bool = False
    roughness: float = 0.05


MORPHOLOGIES = {
    "basophil": Morphology(
        radius=(0.52, 0.68),
        cytoplasm=(0.66, 0.54, 0.74),
        lobes=(0, 0.2, 0.5, 0.3),
        lobe=(0.42, 0.52),
        spread=(0.25, 0.4),
        granules=0.65,
        granule_size=0.05,
        granule=(0.14, 0.05, 0.28),
        granules_hide=True,
        roughness=0.08,
    ),
    "eosinophil": Morphology(
        radius=(0.58, 0.74),
        cytoplasm=(0.86, 0.60, 0.58),
        lobes=(0, 0.05, 0.75, 0.2),
        lobe=(0.34, 0.42),
        spread=(0.38, 0.5),
        granules=0.6,
        granule_size=0.04,
        granule=(0.76, 0.40, 0.40),
    ),
    "erythroblast": Morphology(
        radius=(0.36, 0.58),
        cytoplasm=(0.74, 0.62, 0.68),
        lobes=(0, 1.0),
        lobe=(0.46, 0.62),
        nucleus=(0.17, 0.07, 0.30),
    ),
    "ig": Morphology(
        radius=(0.58, 0.78),
        cytoplasm=(0.64, 0.52, 0.72),
        lobes=(0, 1.0),
        lobe=(0.60, 0.74),
        nucleus=(0.37, 0.20, 0.51),
        spread=(0.1, 0.25),
        indentation=(0.0, 0.35),
        granules=0.35,
        granule_size=0.02,
        granule=(0.46, 0.28, 0.60),
    ),
    "lymphocyte": Morphology(
        radius=(0.42, 0.56),
        cytoplasm=(0.56, 0.60, 0.80),
        lobes=(0, 1.0),
        lobe=(0.80, 0.92),
        spread=(0.0, 0.1),
    ),
    "monocyte": Morphology(
        radius=(0.74, 0.92),
        cytoplasm=(0.66, 0.64, 0.76),
        lobes=(0, 1.0),
        lobe=(0.58, 0.72),
        spread=(0.0, 0.2),
        indentation=(0.35, 0.7),
        granules=0.12,
        granule_size=0.05,
        granule=(0.86, 0.82, 0.84),
        roughness=0.10,
    ),
    "neutrophil": Morphology(
        radius=(0.58, 0.74),
        cytoplasm=(0.86, 0.74, 0.76),
        lobes=(0, 0, 0.1, 0.45, 0.35, 0.1),
        lobe=(0.24, 0.32),
        spread=(0.38, 0.5),
        granules=0.3,
        granule_size=0.025,
        granule=(0.76, 0.60, 0.68),
    ),
    "platelet": Morphology(
        radius=(0.16, 0.32),
        cytoplasm=(0.72, 0.58, 0.76),
        lobes=(1.0,),
        lobe=(0.0, 0.0),
        granules=0.45,
        granule_size=0.03,
        granule=(0.42, 0.22, 0.52),
        roughness=0.16,
    ),
}
