"""The verb `evaluate`."""

import os
from pathlib import Path
from typing import Any

from absl import flags

from bloodcell_jax.cli.data_flags import define_fields, define_finding, fields_of, finding
from bloodcell_jax.cli.model_flags import define_model, load_classifier, model_files
from bloodcell_jax.cli.verb import Verb, define_raw_names, say, value_of


def _define_evaluate(values: flags.FlagValues) -> None:
    define_model(values)
    flags.DEFINE_string("source", None, "data to evaluate on; unset: the run's own data and splits", flag_values=values)
    flags.DEFINE_string(
        "split",
        None,
        "train, val, test or all; unset: test, or val if there is no test, and all of --source; with _aug at its end, "
        "such as val_aug: its images, changed once by the run's augmentation",
        flag_values=values,
    )
    flags.DEFINE_string("output", None, "folder for the results; unset: eval/SPLIT of the workdir", flag_values=values)
    flags.DEFINE_string(
        "class_map",
        None,
        "classes of --source under the model's names, such as 'PMN=neutrophil,Artifact=drop', or a .json file with one "
        "object of names; drop leaves images out; names that differ by case, _, - and blanks alone match by themselves",
        flag_values=values,
    )
    flags.DEFINE_multi_string(
        "slices",
        [],
        "a column whose values are scored by themselves: of the manifest, or PATH:COLUMN of a table beside the source, "
        "such as pbc96.csv:other_acquisition; repeat the flag for more",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "explain",
        None,
        "cells that the page explains: half of them the most confident mistakes, the others the least certain answers; "
        "each costs 50 forward passes; 0: none; unset: evaluate.explain of the run, 20",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_string(
        "embedding_map",
        "pca",
        "method of the map of all images: pca, or umap, which takes longer and needs pip install 'bloodcell_jax[umap]'",
        flag_values=values,
    )
    flags.DEFINE_multi_string(
        "suite",
        [],
        "also answer corrupted images, at five severities: blood96-c (12 corruptions of microscope, smear and file), "
        "imagenet-c (12 common ones) or chains (up to three strong distortions at once); repeat the flag for more",
        flag_values=values,
    )
    define_finding(values)
    define_fields(values, ("data_dir",))
    define_raw_names(values)


def _evaluate(values: flags.FlagValues) -> dict[str, Any]:
    from bloodcell_jax.evaluate.class_map import parse_class_map
    from bloodcell_jax.evaluate.confidence import confidence_sentence, unknown_sentence
    from bloodcell_jax.evaluate.evaluate_source import evaluate_source
    from bloodcell_jax.evaluate.outputs import summary
    from bloodcell_jax.evaluate.robustness.scores import suite_summary
    from bloodcell_jax.evaluate.robustness.suites import suite_of
    from bloodcell_jax.report.evaluation_page import write_evaluation_page
    from bloodcell_jax.run.watch.progress import show_pass
    from bloodcell_jax.workdir.layout import EvaluationFolder
    from bloodcell_jax.workdir.output_files import check_folder

    for name in value_of(values, "suite"):
        suite_of(name)
    source, split, output, class_map = (value_of(values, name) for name in ("source", "split", "output", "class_map"))
    mapped = None if class_map is None else parse_class_map(class_map)
    if output is not None:
        read = [*model_files(values), *([class_map] if class_map else [])]
        folder = EvaluationFolder(Path(os.path.expanduser(output)))
        check_folder(folder.path, folder.files, source, read)
    classifier = load_classifier(values)
    with show_pass("corrupted images") as show:
        folder, scores, suites = evaluate_source(
            classifier,
            source,
            split,
            output,
            class_map=mapped,
            slices=value_of(values, "slices"),
            suites=value_of(values, "suite"),
            explain=value_of(values, "explain"),
            embedding_method=value_of(values, "embedding_map"),
            raw_names=value_of(values, "raw_names"),
            show=show,
            **finding(values),
            **fields_of(values, ("data_dir",)),
        )
    page = write_evaluation_page(folder, classifier.file or classifier.run)
    say(f"{folder.path}: {summary(scores)}")
    for name, of_suite in suites.items():
        say(suite_summary(name, of_suite))
    if source is not None:
        for line in (confidence_sentence(scores), unknown_sentence(scores)):
            if line is not None:
                say(line)
    say(f"page: {page}")
    return {"folder": str(folder.path), "metrics": scores, "suites": suites, "page": str(page)}


EVALUATE = Verb(
    "compute a trained model's metrics on a split or on another source",
    """
  evaluate --workdir=runs/first --split=test
  evaluate --workdir=runs/first --source=folder:other_lab --output=results
  evaluate --model=model.safetensors --source=folder:other_lab --output=results
  evaluate --workdir=runs/first --source=folder:other_lab --output=results --class_map=PMN=neutrophil,Artifact=drop
  evaluate --workdir=runs/first --slices=pbc96.csv:other_acquisition
  evaluate --workdir=runs/first --explain=60 --embedding_map=umap
  evaluate --workdir=runs/first --suite=blood96-c --suite=chains --json""",
    _define_evaluate,
    _evaluate,
    has_source=True,
    has_json=True,
)
