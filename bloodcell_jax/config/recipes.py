"""Recipes of training: lists of stages for `Config.stages`, each from a published source.

A parameter learns or not by the first pattern that matches its path; `head.*` is the head with the norm before it. What
a stage freezes stays as it is to the bit, its average too. `configs/fine_tune.py` makes a configuration of each.
"""

from bloodcell_jax.config.fields import OptimizerConfig, StageConfig

HEAD = "head.*"
_FREEZE_THE_REST = "!.*"
# What `gradual_unfreezing` sets free after the head, from the top down.
_LAYERS = ("stage_3.*", "stage_2.*", "stage_1.*", ".*")
# The operations of the winner (see `winner`), each with the share of images that go through it, 0.1 to 0.4. The
# strengths are not known; these are ours.
WINNER_POLICY = "|".join(
    (
        "affine:degrees=0,translate=0.1,p=0.3",
        "affine:degrees=180,p=0.4",
        "randaugment:n=2,m=9,p=0.4",
        "grid_mask:p=0.2",
        "cutout:size=0.3,p=0.2",
        "brightness:delta=0.2,p=0.3",
        "saturation:delta=0.2,p=0.2",
        "contrast:delta=0.2,p=0.3",
        "channel_shift:delta=0.05,p=0.2",
        "affine:degrees=0,shear=0.1,p=0.2",
        "solarize:threshold=0.5,p=0.1",
    )
)


def linear_probe(*, epochs: float = 20.0, views: int = 8) -> list[StageConfig]:
    """Train a linear classifier on the features of a frozen backbone (Kornblith et al. 2019, arXiv:1805.08974).

    The backbone runs once on each of `views` augmented versions of an image, so that an epoch takes moments. What it
    reaches says how good the pretrained features are for these cells.
    """
    optimizer = OptimizerConfig(name="adamw", learning_rate=1e-3, weight_decay=1e-4)
    trainable = ("head/.*", _FREEZE_THE_REST)
    return [
        StageConfig(name="linear-probe", epochs=epochs, trainable=trainable, cached_views=views, optimizer=optimizer)
    ]


def report(*, head_epochs: float = 10.0, layers: tuple[str, ...] = ("stage_3.*",)) -> list[StageConfig]:
    """Train the head, then chosen layers for three epochs at a low rate, as the report does.

    The report gives neither the rates nor which layers it chose: these are ours.

    Args:
      head_epochs: 10 to 15 in the report.
      layers: patterns of what learns with the head in the second stage.
    """
    return [
        StageConfig(
            name="head",
            epochs=head_epochs,
            trainable=(HEAD, _FREEZE_THE_REST),
            optimizer=OptimizerConfig(name="adam", learning_rate=1e-3),
        ),
        StageConfig(
            name="last-stage",
            epochs=3.0,
            trainable=(HEAD, *layers, _FREEZE_THE_REST),
            optimizer=OptimizerConfig(name="adam", learning_rate=1e-5),
        ),
    ]


def gradual_unfreezing(
    *, epochs: float = 3.0, learning_rate: float = 1e-3, layers: tuple[str, ...] = _LAYERS
) -> list[StageConfig]:
    """Train the head, then set free one part of the network after another from the top down (ULMFiT).

    Each stage has a rate 2.6 times lower than the one before (Howard and Ruder 2018, arXiv:1801.06146, sections 3.2 and
    3.3). So what is learned last, the layers nearest to the image, moves least from the pretrained weights.

    Args:
      epochs: of each stage.
      learning_rate: of the head's stage.
      layers: patterns of what each further stage sets free. The last stage trains everything if it ends with `.*`.
    """
    stages, free = [], (HEAD,)
    for number, layer in enumerate((HEAD, *layers)):
        free = free if layer == HEAD else (*free, layer)
        optimizer = OptimizerConfig(
            name="adamw", learning_rate=learning_rate / 2.6**number, warmup_epochs=0.3, weight_decay=0.05, clip_norm=1.0
        )
        name = {HEAD: "head", ".*": "all"}.get(layer, layer.removesuffix(".*"))
        # Once everything is free, the patterns before decide nothing.
        trainable = (".*",) if layer == ".*" else (*free, _FREEZE_THE_REST)
        stages.append(StageConfig(name=name, epochs=epochs, trainable=trainable, optimizer=optimizer))
    return stages


def winner() -> list[StageConfig]:
    """Train the head for 15 epochs, then everything for 10, with Lion at low rates.

    So did the best of 192 teams in the competition of the report's data, with ConvNeXt-XLarge at 224 pixels: rates from
    5e-5 to 1e-6, then from 5e-6 to 1e-6. The shape between them is not known; here it is a cosine.
    """
    return [
        StageConfig(
            name="head",
            epochs=15.0,
            trainable=(HEAD, _FREEZE_THE_REST),
            optimizer=OptimizerConfig(name="lion", learning_rate=5e-5, final_scale=0.02),
        ),
        StageConfig(
            name="all", epochs=10.0, optimizer=OptimizerConfig(name="lion", learning_rate=5e-6, final_scale=0.2)
        ),
    ]


def from_scratch(
    *, epochs: float = 10.0, schedule: str = "cosine", optimizer: str = "adamw", learning_rate: float = 2e-3
) -> list[StageConfig]:
    """Train everything from random weights, by default as ConvNeXt was trained, at a rate for batches of 64.

    AdamW with a linear warm-up, a cosine and a weight decay of 0.05 (Liu et al. 2022, arXiv:2201.03545, appendix A.1).

    Args:
      epochs: of the one stage.
      schedule: `linear` where `train.ema_decay` averages the parameters.
      optimizer: `muon` takes rates of AdamW.
      learning_rate: the highest.
    """
    rule = OptimizerConfig(
        name=optimizer,
        learning_rate=learning_rate,
        schedule=schedule,
        warmup_epochs=1.0,
        weight_decay=0.05,
        clip_norm=1.0,
    )
    return [StageConfig(epochs=epochs, optimizer=rule)]


def robust_policy(*, trivialaugments: int = 1) -> str:
    """Return the policy that makes images of one laboratory differ as those of many do.

    TrivialAugment draws one of its operations for each image, of any strength (Müller and Hutter 2021,
    arXiv:2103.10158). The other operations imitate microscopes, stains, cameras and file compression, and hide parts of
    the cell. docs/fine_tuning.md has the trials.

    Args:
      trivialaugments: how many operations of TrivialAugment each image goes through, one after the other.
    """
    operations = (
        "d4",
        "affine:degrees=180,shear=0.2,translate=0.2,zoom=0.2,p=0.5",
        *("trivialaugment",) * trivialaugments,
        "stain:scale=0.4,shift=0.05,p=0.5",
        "gaussian_blur:sigma=0..1.5,radius=5,p=0.2",
        "gaussian_noise:sigma=0.2,p=0.2",
        "jpeg:quality=5..80,p=0.2",
        "grid_mask:ratio=0.6,fill=black,p=0.1",
        "cutout:size=0.6,fill=black,p=0.1",
    )
    return "|".join(operations)
