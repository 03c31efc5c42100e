"""What `--search` may say, and what is refused before any trial."""

import copy

import pytest

from bloodcell_jax import cli
from bloodcell_jax.cli.sweep import _read_field
from bloodcell_jax.config import Config, DataConfig, ModelConfig
from bloodcell_jax.errors import UsageError
from bloodcell_jax.search.search_space import check_values, parse_search, with_values


def parse(*texts):
    return parse_search(texts, lambda path, text: _read_field(Config(), path, text))


def test_every_kind():
    rate, path, steps, policy = parse(
        "stages[0].optimizer.learning_rate:loguniform:1e-6:1e-3",
        "model.drop_path:uniform:0:0.5",
        "train.batch_size:int:16:64",
        'augment.policy:choice:["d4","randaugment:n=2,m=9"]',
    )
    assert rate.bounds == (1e-6, 1e-3)
    assert path.bounds == (0, 0.5)
    assert steps.bounds == (16, 64)
    assert list(policy.choices) == ["d4", "randaugment:n=2,m=9"]
    assert parse("train.ema_decay:choice:none,0.9")[0].choices == {"none": None, "0.9": 0.9}
    config = Config()
    config.augment.block = 8  # each of the 8 devices has 8 images
    check_values(config, [rate, path, policy])


def test_a_value_is_set_in_a_copy():
    config = Config()
    before = copy.deepcopy(config)
    changed = with_values(config, {"stages[0].optimizer.learning_rate": 0.5})
    assert changed.stages[0].optimizer.learning_rate == 0.5
    assert config == before


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("stages[0].optimizer.learning_rat:loguniform:1e-6:1e-3", "did you mean .*stages.0..optimizer.learning_rate"),
        ("model.drop_path:normal:0:1", "uniform:LOW:HIGH"),
        ("model.drop_path:uniform:0.5:0.1", "lower bound"),
        ("model.drop_path:loguniform:0:0.1", "above 0"),
        ("train.batch_size:uniform:16:64", "train.batch_size:int:16:64"),
        ("model.variant:uniform:a:b", "holds no number"),
        ("model.drop_path:uniform:0:x", "model.drop_path"),
        ("augment.policy:choice:d4", "two or more"),
        ("train.loss:choice:focal,focal", "two or more"),
        ('augment.policy:choice:["d4"', "JSON"),
    ],
)
def test_what_cannot_be_read_is_refused(text, named):
    with pytest.raises(UsageError, match=named):
        parse(text)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("model.drop_path:uniform:0:7", "drop_path=7"),
        ("augment.policy:choice:randaugment:n=2,m=9", "m=9"),
        ("model.variant:choice:convnext_atto,convnext_atomic", "convnext_atomic"),
        ("train.batch_size:choice:16,20", "batch_size=20: 8 devices"),
        # Both ends are multiples of the 8 devices, and what lies between is not.
        ("train.batch_size:int:16:64", "--search=train.batch_size:int:16:64: .*batch_size=17: 8 devices"),
        ("train.accumulate:choice:1,3", "accumulate=3"),
        ("train.shard_state:choice:none,all", "backend=jit"),
    ],
)
def test_a_value_that_is_not_legal_is_refused_before_any_trial(text, named):
    with pytest.raises(UsageError, match=named):
        check_values(Config(), parse(text))


@pytest.mark.parametrize("text", ["model.stem_stride:choice:4,2", "model.drop_path:uniform:0:0.3"])
def test_an_option_that_the_network_lacks_is_refused_before_any_trial(text):
    with pytest.raises(UsageError, match=r"custom_cnn has no such option"):
        check_values(Config(model=ModelConfig(variant="custom_cnn")), parse(text))


def test_a_field_stands_once():
    with pytest.raises(UsageError, match=r"model\.drop_path.*twice"):
        parse("model.drop_path:uniform:0:0.1", "model.drop_path:uniform:0:0.2")


def test_the_verb_wants_a_search(config_file, tmp_path, capsys):
    assert cli.main(["bloodcell", "sweep", f"--config={config_file}", f"--workdir={tmp_path / 'sweep'}"]) == 2
    assert "--search: missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    "field", ["data.split_seed:int:0:5", "data.folds:int:2:5", "data.clean:choice:none,clean.json"]
)
def test_what_judges_a_trial_is_not_searched(field):
    with pytest.raises(UsageError, match=field):
        check_values(Config(data=DataConfig(folds=3)), parse(field))
