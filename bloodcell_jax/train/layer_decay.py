"""Layer-wise decay of the learning rate: the nearer a layer lies to the image, the less it learns.

Early layers of a pretrained network see edges and colors, which other images have too; late ones see the classes that
the network was trained on (Bao et al. 2022, arXiv:2106.08254; ConvNeXt, arXiv:2201.03545, appendix A.2).
"""

import math
import re
from typing import Any

import optax

from bloodcell_jax.models.network import Params, leaves_by_path

# Blocks of the third stage that form a group; each other stage is one group.
_BLOCKS = 3
_STAGE = re.compile(r"stage_(\d+)(?:/block_(\d+))?")

# Path of a parameter -> groups of layers from the head to its own.
Distances = dict[str, int]


def distances_from_head(params: Params) -> Distances:
    """Return by path how many groups of layers it is from the head to each parameter.

    The groups are those of the published fine-tuning (`get_num_layer_for_convnext` of facebookresearch/ConvNeXt): the
    stem; the first, the second and the fourth stage; three consecutive blocks of the third. A downsampling belongs to
    the first group of its stage. So 27 blocks in the third stage make 12 groups behind the stem, 9 make 6, and 6 make
    5: a third stage of d blocks always has ceil(d / 3). The norms and layers behind the stages are the head's, at
    distance 0.

    Args:
      params: all parameters of a network, arrays or shapes; what a stage freezes counts as well.
    """
    places = {path: _place(path) for path in leaves_by_path(params)}
    order = sorted(set(places.values()), reverse=True)
    return {path: order.index(place) for path, place in places.items()}


def _place(path: str) -> tuple[float, int]:
    """Return what sorts the groups from the image to the head."""
    if match := _STAGE.match(path):
        stage, block = int(match[1]), int(match[2] or 0)
        return stage, block // _BLOCKS if stage == 2 else 0
    return (-1, 0) if path.startswith("stem_") else (math.inf, 0)


def name_of_distance(distance: int) -> str:
    """Return the part of an array's name that says how far the parameters that are joined in it are from the head."""
    return f"distance_{distance}"


def scale_by_layer(decay: float, distances: Distances) -> optax.GradientTransformation:
    """Return what multiplies each update by `decay` to the power of its parameter's distance from the head.

    It follows the learning rate, so weight decay is scaled too, as in the published fine-tuning, where each group has a
    learning rate of its own.

    Args:
      decay: 1 changes nothing.
      distances: as `distances_from_head` returns them. Updates are arrays by name: a path, or the name of several
        parameters joined, all at one distance (see `Joining`).
    """
    by_part = {name_of_distance(distance): distance for distance in set(distances.values())}

    def distance_of(name: str) -> int:
        return distances[name] if name in distances else by_part[name.split("/")[1]]

    def scaled(updates: Any, params: Any) -> dict[str, Any]:
        return {name: decay ** distance_of(name) * update for name, update in updates.items()}

    return optax.stateless(scaled)
