"""Every option of a run, once: typed dataclasses whose fields carry their help, legal values and what may change."""

from dataclasses import dataclass

from bloodcell_jax.config.data import DataConfig
from bloodcell_jax.config.option import option


@dataclass(kw_only=True)
class ModelConfig:
    variant: str = option("convnext_atto", "timm's model name (convnext_tiny, convnextv2_atto, ...) or custom_cnn")
    weights: str | None = option(
        None,
        "a checkpoint in any published layout, the workdir of a finished run, pbc_cnn or pbc_atto, or a published name "
        "such as convnext_base.fb_in22k_ft_in1k or hf:OWNER/NAME[@REVISION] (downloaded once); PATH#NAME takes the "
        "network under NAME if the file holds several (both.pth#model); unset: random initialization",
    )
    num_classes: int | None = option(None, "size of the head; unset: the number of classes in the data", minimum=2)
    drop_path: float = option(
        0.0, "ConvNeXt only: drop path rate of the last block; it rises linearly from 0", minimum=0.0, maximum=0.99
    )
    layer_scale: float | None = option(None, "ConvNeXt only: layer scale at first; unset: the variant's", minimum=0.0)
    head_init_scale: float = option(1.0, "factor on the head's initial weights", minimum=0.0)
    stem_stride: int = option(4, "ConvNeXt only: 4, or 2 to keep twice the resolution of small images", choices=(2, 4))
    norm_eps: float | None = option(None, "ConvNeXt only: LayerNorm epsilon; unset: the variant's own", minimum=0.0)
    activation: str | None = option(
        None, "ConvNeXt only; unset: the variant's own (erf GELU)", choices=("gelu", "gelu_tanh", "silu")
    )
    mean: tuple[float, ...] = option((), "mean per channel of images in [0, 1]; empty: the weights' or ImageNet's")
    std: tuple[float, ...] = option(
        (), "standard deviation per channel of images in [0, 1]; empty: the weights' or ImageNet's"
    )
    dtype: str = option(
        "bfloat16", "precision of the computation; parameters are float32", choices=("bfloat16", "float32")
    )
    remat: bool = option(False, "ConvNeXt only: recompute each block in the backward pass to save memory")
    scan_blocks: bool = option(
        False, "run the blocks of a ConvNeXt's stage in a loop: a smaller program that compiles sooner, a slower step"
    )


@dataclass(kw_only=True)
class AugmentConfig:
    policy: str = option(
        "d4|brightness:delta=0.2|contrast:delta=0.2|saturation:delta=0.2|hue:delta=0.02",
        "operations joined by |, each name[:key=value,...]; none: no augmentation. The operations are listed under "
        "Augmentation",
    )
    mix: str = option(
        "none",
        "mixup, cutmix or fmix with options, such as mixup:alpha=0.2; each image gets one of several joined by |",
    )
    block: int = option(
        32,
        "consecutive examples among which choices across images are made; must divide the batch of a device",
        minimum=2,
    )


_WITH_WARMUP = ("schedule", ("cosine", "linear", "constant", "exponential", "plateau"))
_WITH_MOMENTS = ("name", ("adamw", "adam", "lion", "muon"))


@dataclass(kw_only=True)
class OptimizerConfig:
    name: str = option("adamw", "update rule", choices=("adamw", "adam", "lion", "muon", "sgd"))
    learning_rate: float = option(1e-3, "peak learning rate", minimum=0.0)
    schedule: str = option(
        "cosine",
        "shape of the learning rate after the warm-up; exponential falls by the same factor in every step, to "
        "final_scale; one_cycle has a warm-up of its own, 30 % of the steps from a 25th of the peak; plateau is "
        "constant, and falls whenever train.best_metric does not become better",
        choices=("cosine", "linear", "constant", "exponential", "one_cycle", "plateau"),
    )
    warmup_epochs: float = option(0.0, "epochs of linear warm-up from 0", minimum=0.0, read_with=_WITH_WARMUP)
    warmup_steps: int | None = option(
        None, "steps of linear warm-up; wins over warmup_epochs", minimum=0, read_with=_WITH_WARMUP
    )
    final_scale: float = option(
        0.0,
        "last learning rate as a fraction of the peak",
        minimum=0.0,
        maximum=1.0,
        read_with=("schedule", ("cosine", "linear", "exponential", "plateau")),
    )
    plateau_factor: float = option(
        0.1,
        "factor on the learning rate at each plateau of schedule=plateau",
        minimum=0.0,
        maximum=1.0,
        read_with=("schedule", ("plateau",)),
    )
    plateau_patience: int = option(
        5,
        "evaluations in a row without a better train.best_metric in this stage after which schedule=plateau lowers the "
        "learning rate",
        minimum=1,
        read_with=("schedule", ("plateau",)),
    )
    weight_decay: float = option(
        0.0,
        "decoupled weight decay of kernels; biases, norms and layer scales never decay",
        minimum=0.0,
        read_with=("name", ("adamw", "lion", "muon", "sgd")),
    )
    b1: float | None = option(
        None,
        "decay of the first moment; unset: 0.9, or 0.95 for matrices of muon",
        minimum=0.0,
        maximum=0.9999999,
        read_with=_WITH_MOMENTS,
    )
    b2: float | None = option(
        None,
        "decay of the second moment; unset: 0.999, or 0.99 for lion",
        minimum=0.0,
        maximum=0.9999999,
        read_with=_WITH_MOMENTS,
    )
    momentum: float = option(0.9, "momentum of sgd", minimum=0.0, maximum=0.9999999, read_with=("name", ("sgd",)))
    layer_decay: float | None = option(
        None,
        "learning rate of a group of layers as a fraction of that of the group behind it, such as 0.8; the head has "
        "the full rate; unset: all layers have it",
        minimum=0.1,
        maximum=1.0,
    )
    clip_norm: float | None = option(None, "largest global norm of the gradient; unset: no clipping", minimum=0.0)
    moment_dtype: str = option("float32", "precision of the first moment", choices=("float32", "bfloat16"))

    @property
    def betas(self) -> tuple[float, float]:
        """Decay of the first and of the second moment."""
        default_b2 = 0.99 if self.name == "lion" else 0.999
        return 0.9 if self.b1 is None else self.b1, default_b2 if self.b2 is None else self.b2


@dataclass(kw_only=True)
class StageConfig:
    name: str = option("train", "name in logs and reports")
    epochs: float | None = option(None, "length in epochs of the sampler", minimum=0.0)
    steps: int | None = option(None, "length in steps; wins over epochs", minimum=1)
    trainable: tuple[str, ...] = option(
        (".*",),
        "ordered regular expressions over parameter paths; the first full match decides; !REGEX freezes; every "
        "parameter must match one",
    )
    image_size: int | None = option(
        None,
        "side in pixels of the images that this stage trains on, so that the first stages cost less; they are made "
        "smaller on the device, before the augmentation; unset: data.image_size",
        minimum=16,
    )
    cached_views: int | None = option(
        None,
        "for a stage that trains the head alone: augment every example in this many fixed ways, run the frozen "
        "backbone once on each, and train on the features; unset: freshly augmented images in every epoch",
        minimum=1,
    )
    optimizer: OptimizerConfig = option(None, "update rule of this stage", factory=OptimizerConfig)


@dataclass(kw_only=True)
class TrainConfig:
    backend: str = option("pmap", "how a step is spread over the devices", choices=("pmap", "jit"), may_change=True)
    batch_size: int = option(64, "examples per step over all devices", minimum=1)
    accumulate: int = option(
        1,
        "parts in which each device works through its share of a batch: the step is the same, its memory that of one "
        "part",
        minimum=1,
    )
    shard_state: str = option(
        "none",
        "what is cut over the devices instead of copied to each: the optimizer's moments and the moving average; all, "
        "the parameters too. A step needs less memory and sends more; needs backend=jit",
        choices=("none", "optimizer", "all"),
        may_change=True,
    )
    label_smoothing: float = option(
        0.0, "probability mass of a target that is spread over all classes", minimum=0.0, maximum=0.99
    )
    class_weights: str = option(
        "none",
        "weight of each class in the loss: the inverse of its size, or of its effective number of examples",
        choices=("none", "inverse", "effective"),
    )
    class_weights_beta: float = option(
        0.999,
        "beta for class_weights=effective: 0 weighs all classes alike; towards 1 it becomes inverse",
        minimum=0.0,
        maximum=0.9999999,
        read_with=("class_weights", ("effective",)),
    )
    logit_adjustment: str = option(
        "none",
        "class prior that predictions follow, whatever the sampler and the class weights show: natural, the training "
        "split's own; balanced, all classes alike; none, what training shows; of loss=cross_entropy alone",
        choices=("none", "natural", "balanced"),
    )
    loss: str = option(
        "cross_entropy",
        "cross_entropy; focal: it counts an example by (1 - its probability) ** focal_gamma, so that hard ones decide; "
        "binary: one yes or no for each class",
        choices=("cross_entropy", "focal", "binary"),
    )
    focal_gamma: float = option(
        2.0, "gamma of loss=focal; 0 is the cross-entropy", minimum=0.0, read_with=("loss", ("focal",))
    )
    jsd: float | None = option(
        None, "weight of AugMix's consistency loss, 12 in its paper; needs augmix in augment.policy", minimum=0.0
    )
    ema_decay: float | None = option(
        None,
        "decay of the moving average of the parameters; evaluation uses the average; unset: no average",
        minimum=0.0,
        maximum=1.0,
    )
    ema_warmup: bool = option(
        False, "begin the average with a low decay, (1 + step) / (10 + step), so that it forgets the first weights soon"
    )
    deterministic: bool = option(
        False, "bit-identical reruns on NVIDIA too, which is slower; CPU and TPU always are bit-identical"
    )
    log_every: int = option(20, "steps between lines of metrics.jsonl", minimum=1, may_change=True)
    evaluate_every: int = option(0, "steps between evaluations on val; 0: once an epoch", minimum=0, may_change=True)
    checkpoint_every: int = option(
        0, "steps between checkpoints besides those at evaluations; 0: none", minimum=0, may_change=True
    )
    keep_last: int = option(2, "number of latest checkpoints to keep", minimum=1, may_change=True)
    keep_best: int = option(1, "number of best checkpoints to keep", minimum=0, may_change=True)
    keep_every: int = option(
        0, "keep also the checkpoints whose step is a multiple of this; 0: none", minimum=0, may_change=True
    )
    best_metric: str = option(
        "val/f1_macro",
        "metric that decides which checkpoint is the best",
        choices=("val/f1_macro", "val/accuracy", "val/loss"),
    )
    early_stop: int | None = option(
        None,
        "end the run after so many evaluations in a row of the last stage without a better best_metric in it; unset: "
        "run all steps",
        minimum=1,
        may_change=True,
    )
    max_bad_steps: int = option(
        10,
        "steps in a row that may be skipped because their loss or gradient is not finite, or their loss a spike; one "
        "more ends the run",
        minimum=0,
        may_change=True,
    )
    spike_sigma: float | None = option(
        None,
        "skip a step whose loss lies so many standard deviations above the mean of the last 100 good losses of the "
        "stage, such as 6; unset: any finite loss is good",
        minimum=1.0,
    )


@dataclass(kw_only=True)
class EvaluateConfig:
    batch_size: int = option(256, "images per forward pass over all devices", minimum=1, may_change=True)
    explain: int = option(
        20,
        "cells of each evaluated split that its page explains: half of them the most confident mistakes, the others "
        "the least certain answers; 0: none",
        minimum=0,
        may_change=True,
    )
    slices: tuple[str, ...] = option(
        (),
        "columns whose values are scored by themselves, such as the stain: of the manifest, or PATH:COLUMN of a table "
        "beside the source with a row for every image",
        may_change=True,
    )


@dataclass(kw_only=True)
class Config:
    seed: int = option(
        0,
        "seed of the split, the order, the initial weights and every random draw",
        minimum=0,
        maximum=2**32 - 1,
    )
    data: DataConfig = option(None, "what to learn from", factory=DataConfig)
    model: ModelConfig = option(None, "the network", factory=ModelConfig)
    augment: AugmentConfig = option(None, "how training images are augmented", factory=AugmentConfig)
    stages: list[StageConfig] = option(None, "run one after the other", factory=lambda: [StageConfig(epochs=10.0)])
    train: TrainConfig = option(None, "the training loop", factory=TrainConfig)
    evaluate: EvaluateConfig = option(None, "evaluation and prediction", factory=EvaluateConfig)

    @property
    def split_seed(self) -> int:
        """Seed of the split: `data.split_seed`, or `seed` if that is unset."""
        return self.seed if self.data.split_seed is None else self.data.split_seed
