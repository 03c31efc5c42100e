"""An option that the choice beside it does not read is refused, and is no reason to refuse a finished model."""

import pytest
from absl import flags

from bloodcell_jax.cli.config_flags import parse
from bloodcell_jax.config import check_all_read, from_dict, to_dict
from bloodcell_jax.errors import UsageError
from bloodcell_jax.run.create import check_without_data

OPTIMIZER = "stages[0].optimizer"


def config_of(*fields):
    words = [f"--config.{field}" for field in fields]
    return parse(flags.FlagValues(), ["bloodcell", "--config=pbc_scratch", *words])[1]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (["data.sampler_power=0.9"], ["sampler_power=0.9", "sampler=power", "natural", "0.5"]),
        (["data.sampler_redraw=true"], ["sampler_redraw=True", "sampler=under", "natural", "False"]),
        (["train.focal_gamma=1"], ["train.focal_gamma=1", "loss=focal", "cross_entropy", "2.0"]),
        (["train.class_weights_beta=0.9"], ["class_weights_beta=0.9", "class_weights=effective", "is none", "0.999"]),
        ([f"{OPTIMIZER}.momentum=0.8"], [f"config.{OPTIMIZER}.momentum=0.8", "name=sgd", "is adamw", "0.9"]),
        ([f"{OPTIMIZER}.plateau_factor=0.5"], ["plateau_factor=0.5", "schedule=plateau", "cosine", "0.1"]),
        ([f"{OPTIMIZER}.plateau_patience=3"], ["plateau_patience=3", "schedule=plateau", "cosine", "5"]),
        ([f"{OPTIMIZER}.name=sgd", f"{OPTIMIZER}.b1=0.8"], ["b1=0.8", "adamw or adam or lion or muon", "sgd", "none"]),
        ([f"{OPTIMIZER}.name=adam"], [f"{OPTIMIZER}.weight_decay=0.05", "adamw or lion or muon or sgd", "is adam;"]),
        (
            [f"{OPTIMIZER}.schedule=constant", f"{OPTIMIZER}.final_scale=0.1"],
            ["final_scale=0.1", "cosine or linear or exponential or plateau", "is constant"],
        ),
        ([f"{OPTIMIZER}.schedule=one_cycle"], ["warmup_epochs=1.0", "is one_cycle", "0.0"]),
    ],
)
def test_it_is_refused_with_both_names(fields, words):
    config = config_of(*fields)
    with pytest.raises(UsageError) as refused:
        check_without_data(config)
    for word in words:
        assert word in str(refused.value)
    # What was made before this was refused is read as ever.
    assert from_dict(to_dict(config)) == config


@pytest.mark.parametrize(
    "fields",
    [
        ["data.sampler=power", "data.sampler_power=0.9"],
        ["train.loss=focal", "train.focal_gamma=1"],
        [f"{OPTIMIZER}.name=sgd", f"{OPTIMIZER}.momentum=0.8"],
        [f"{OPTIMIZER}.schedule=plateau", f"{OPTIMIZER}.plateau_patience=3", f"{OPTIMIZER}.final_scale=0.1"],
        # The default is what is read if nothing is set.
        [f"{OPTIMIZER}.momentum=0.9"],
    ],
)
def test_beside_its_choice_it_is_read(fields):
    check_all_read(config_of(*fields))
