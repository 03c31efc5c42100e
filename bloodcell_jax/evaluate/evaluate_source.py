"""What the verb `evaluate` does: a classifier's metrics on one split of a source."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bloodcell_jax.config.data import SCALE
from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.errors import UsageError
from bloodcell_jax.evaluate.answers import Answers
from bloodcell_jax.evaluate.augmented_split import answer_augmented
from bloodcell_jax.evaluate.class_map import ClassMap
from bloodcell_jax.evaluate.classifier import Classifier
from bloodcell_jax.evaluate.examples import Examples, find_examples
from bloodcell_jax.evaluate.explain.embedding_map import EmbeddingSample, check_method
from bloodcell_jax.evaluate.explain.explained_split import Explanations, explain_split
from bloodcell_jax.evaluate.medmnist_results import write_medmnist_results
from bloodcell_jax.evaluate.metrics import Scores
from bloodcell_jax.evaluate.out_of_distribution import count_kept
from bloodcell_jax.evaluate.outputs import write_split
from bloodcell_jax.evaluate.robustness.evaluate_suites import evaluate_suites
from bloodcell_jax.evaluate.robustness.suites import Suite, suite_of
from bloodcell_jax.evaluate.slices import read_slices
from bloodcell_jax.evaluate.training_images import training_images
from bloodcell_jax.weights.model_file import read_model_record
from bloodcell_jax.workdir.layout import AUGMENTED, STEP, TTA, EvaluationFolder

logger = logging.getLogger(__name__)


class Evaluation(NamedTuple):
    """What was written of an evaluated split.

    Attributes:
      folder: its files.
      scores: the content of `metrics.json`.
      suites: the content of each suite's file, by its name.
    """

    folder: EvaluationFolder
    scores: Scores
    suites: dict[str, dict[str, Any]]


def evaluate_source(
    classifier: Classifier,
    source: str | None,
    split: str | None,
    output: str | None,
    *,
    class_map: ClassMap | None = None,
    slices: Sequence[str] = (),
    suites: Sequence[str] = (),
    explain: int | None = None,
    embedding_method: str = "pca",
    raw_names: bool = False,
    show: Callable[[int, int], None] = lambda done, total: None,
    **reading: Any,
) -> Evaluation:
    """Evaluate a classifier on one split of a source and write the split's files.

    Args:
      source: data source; None: the run's own.
      split: train, val, test or all; None: test, or val if there is no test (all for another source). With `_aug` at
        its end, such as val_aug: the same images, changed once by the augmentation of the run.
      output: folder for the files; None: eval/<split> of the workdir, for the run's own source alone.
      class_map: class of `source` -> class of the model, `drop` or None; other names match by themselves.
      slices: columns that are scored value by value, see `read_slices`; none: those of the run, on its own data.
      suites: names of suites of corruptions that are scored as well.
      explain: images that the page explains; None: as many as `evaluate.explain` of the run says.
      embedding_method: of the map of the split, see `embedding_map`.
      raw_names, show: those of `write_split` and `evaluate_suites`.
      **reading: fields of `DataConfig` that say how `source` is read: data_dir, skip_bad, include, exclude,
        class_level, split_folders, group_regex, columns, root, file_pattern; of the run's own data_dir alone.

    Raises:
      UsageError, DataError: as for training.
    """
    chosen = [suite_of(name) for name in dict.fromkeys(suites)]
    _check_asked(classifier, source, split, output, class_map, chosen, embedding_method)
    _check_own(classifier, source, output, reading)
    examples = find_examples(classifier, source, split, class_map or {}, reading)
    of_examples = read_slices(examples.dataset, slices or (classifier.config.evaluate.slices if not source else ()))
    own = examples.dataset if source is None else None
    answers, sample, explanations = _answered(classifier, examples, own, explain, embedding_method)
    folder = EvaluationFolder(Path(os.path.expanduser(output))) if output else _own_folder(classifier, examples.split)
    origin = _origin(classifier, examples, sample)
    scores = write_split(
        folder,
        examples.dataset,
        examples.indices,
        answers,
        step=classifier.step,
        calibration=classifier.calibration,
        holds_val=examples.seen.get("val", 0) > 0,
        origin=origin,
        slices=of_examples,
        raw_names=raw_names,
        explanations=explanations,
    )
    if examples.as_published:
        write_medmnist_results(folder, origin, answers.probabilities, scores, _model_name(classifier))
    of_suites = evaluate_suites(classifier, examples, answers, chosen, folder, origin=origin, show=show)
    return Evaluation(folder, scores, of_suites)


def _check_asked(
    classifier: Classifier,
    source: str | None,
    split: str | None,
    output: str | None,
    class_map: ClassMap | None,
    suites: Sequence[Suite],
    embedding_method: str,
) -> None:
    """Refuse what cannot be done, before anything is read."""
    if source is None and class_map:
        raise UsageError("--class_map: belongs to --source; the run's own classes are the model's")
    if source is not None and output is None:
        raise UsageError("--output: missing; with --source the results need a folder of their own")
    if suites and split is not None and split.endswith(AUGMENTED):
        raise UsageError(f"--split={split}: a suite corrupts images as they are; name {split.removesuffix(AUGMENTED)}")
    if classifier.workdir is None and split is not None and split.endswith(AUGMENTED):
        raise UsageError(
            f"--split={split}: a model's file does not say which augmentation its run used; give --workdir, or "
            f"--split={split.removesuffix(AUGMENTED)}"
        )
    check_method(embedding_method)


def _check_own(classifier: Classifier, source: str | None, output: str | None, reading: Mapping[str, Any]) -> None:
    """Refuse what does not go with the run's own images; the arguments are those of `evaluate_source`."""
    if source is not None:
        return
    if given := [name for name, value in reading.items() if value and name != "data_dir"]:
        raise UsageError(f"--{given[0]}: belongs to --source; the run's own images are read as for its training")
    if output is None and (other := _other_view(classifier)):
        raise UsageError(
            f"--{next(iter(other))}: eval/ of the run holds the results of the part of each image that it was trained "
            "on; name a folder for these by --output"
        )


def _origin(classifier: Classifier, examples: Examples, sample: EmbeddingSample | None) -> dict[str, Any]:
    """Return what `metrics.json` says of the examples, and of answers that are not those to the images as they are."""
    origin = {"source": examples.dataset.source, "split": examples.split} | examples.mapped
    if trained_on := examples.seen.get("train"):
        origin["seen_in_training"] = trained_on
    elif sample is not None and (kept := _kept_of_training(classifier, examples, sample)):
        origin["seen_in_training_at_least"] = kept
    if examples.augmented:
        origin["augmented_by"] = classifier.config.augment.policy
    return origin | _other_view(classifier) | ({"tta": True} if classifier.tta else {})


def _other_view(classifier: Classifier) -> dict[str, Any]:
    """Return the fields by which another part of each image is looked at than the run was trained on."""
    if classifier.workdir is None:
        return {}
    then, now = classifier.run.read_config().data, classifier.config.data
    return {name: getattr(now, name) for name in SCALE if getattr(now, name) != getattr(then, name)}


def _kept_of_training(classifier: Classifier, examples: Examples, sample: EmbeddingSample) -> int:
    """Return, and log, how many examples are training images whose features the model's file keeps."""
    if classifier.calibration is None:
        return 0
    kept = count_kept(sample.pooled, classifier.calibration.reference)
    if kept:
        logger.warning(
            "%s: at least %s of %s images are among those that the model learned from, by the features of training "
            "images that its file keeps, so scores on them say nothing of other cells",
            *(examples.dataset.source, f"{kept:,}", f"{len(examples.indices):,}"),
        )
    return kept


def _own_folder(classifier: Classifier, split: str) -> EvaluationFolder:
    """Return the folder of a split of the run.

    Answers by test-time augmentation, and those of another checkpoint than the run's model, have folders of their own
    beside the results that the run reports.
    """
    run = classifier.run
    other = run.model.exists() and read_model_record(run.model).step != classifier.step
    return run.evaluation(split + TTA * classifier.tta + f"{STEP}{classifier.step}" * other)


def _model_name(classifier: Classifier) -> str:
    return classifier.workdir.path.resolve().name if classifier.workdir else "model"


def _answered(
    classifier: Classifier,
    examples: Examples,
    learned_from: Dataset | None,
    count: int | None,
    embedding_method: str,
) -> tuple[Answers, EmbeddingSample | None, Explanations | None]:
    """Return the answers to some examples, the features of a sample, and what explains them.

    The last two are None of augmented images. `learned_from` is that of `training_images`.
    """
    dataset, indices = examples.dataset, examples.indices
    if examples.augmented:
        return answer_augmented(classifier, dataset, indices), None, None
    sample = EmbeddingSample(len(indices))
    count = classifier.config.evaluate.explain if count is None else count
    logger.info("evaluating %s images and explaining %d of them", f"{len(indices):,}", min(count, len(indices)))
    answers = classifier.answer_examples(dataset.images, indices, sample=sample)
    explanations = explain_split(
        classifier.outputs_and_grad_cam,
        dataset,
        indices,
        answers.probabilities,
        sample,
        lambda: training_images(classifier, learned_from),
        count=count,
        batch_size=classifier.batch_size,
        method=embedding_method,
    )
    return answers, sample, explanations
