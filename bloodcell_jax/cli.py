"""The command line: verbs, their flags, and one line with an exit code for whatever a user can mend."""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from absl import flags
from absl import logging as absl_logging

from bloodcell_jax import config_flags
from bloodcell_jax.config import Config
from bloodcell_jax.errors import MachineError, UsageError, UserError
from bloodcell_jax.train.distributed import MODES


@dataclass(frozen=True)
class Verb:
    """One verb: what it does, how it is used, the flags it defines and the function that runs it."""

    summary: str
    usage: str
    define: Callable[[flags.FlagValues], None]
    run: Callable[..., None]
    has_config: bool = False


def main(argv: Sequence[str]) -> int:
    """Run the command line `argv` (program first) and return its exit code."""
    # Orbax and JAX warn through absl and logging of things that are this library's business, not the user's.
    absl_logging.set_verbosity(absl_logging.FATAL)
    _show_messages()
    try:
        return _run(list(argv))
    except UserError as error:
        print(f"bloodcell: {error}", file=sys.stderr)
        return error.exit_code
    except MemoryError:
        print("bloodcell: out of memory; lower the batch size, or set --config.model.remat", file=sys.stderr)
        return MachineError.exit_code
    except RuntimeError as error:
        # What XLA says when a device's memory is full; everything else is a bug and keeps its traceback.
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        print("bloodcell: out of device memory; lower the batch size, or set --config.model.remat", file=sys.stderr)
        return MachineError.exit_code
    except KeyboardInterrupt:
        print("bloodcell: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of a pipe (head, less) went away; nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


class _Messages(logging.Handler):
    """Prints what the library has to say as the command line's own lines."""

    def emit(self, record: logging.LogRecord) -> None:
        print(f"bloodcell: {record.getMessage()}", file=sys.stderr, flush=True)


def _show_messages() -> None:
    logger = logging.getLogger("bloodcell_jax")
    if not any(isinstance(handler, _Messages) for handler in logger.handlers):
        logger.addHandler(_Messages())
        logger.setLevel(logging.INFO)
        logger.propagate = False


def _run(argv: list[str]) -> int:
    words = argv[1:]
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0 if words else 2
    if words[0] == "--version":
        print(f"bloodcell_jax {metadata.version('bloodcell_jax')}")
        return 0
    name, rest = words[0], words[1:]
    if name not in VERBS:
        raise UsageError(f"{name}: no such verb; there are {', '.join(VERBS)}")
    verb = VERBS[name]
    if any(word in ("-h", "--help") for word in rest):
        print(_help(name, verb))
        return 0
    verb.run(*_parse(verb, name, rest))
    return 0


def _parse(verb: Verb, name: str, words: list[str]) -> tuple:
    """Return what `verb.run` takes: the flags and, where the verb has one, the configuration."""
    values = flags.FlagValues()
    verb.define(values)
    command = [name, *words]
    try:
        if verb.has_config:
            left, config = config_flags.parse(values, command)
        else:
            left = values(command)[1:]
    except flags.UnrecognizedFlagError as error:
        raise UsageError(f"--{error.flagname}: no such flag of {name}; see {name} --help") from error
    except flags.Error as error:
        raise UsageError(" ".join(str(error).removeprefix("flag ").split())) from error
    if left:
        raise UsageError(f"{left[0]}: unexpected; flags are written --name=value")
    return (values, config) if verb.has_config else (values,)


def _overview() -> str:
    lines = ["Train and use single-cell classifiers.", "", "  VERB --help shows a verb's flags.", ""]
    lines += [f"  {name:10} {verb.summary}" for name, verb in VERBS.items()]
    return "\n".join(lines)


def _help(name: str, verb: Verb) -> str:
    values = flags.FlagValues()
    verb.define(values)
    lines = [verb.summary, "", verb.usage.strip("\n"), "", "Flags:"]
    for flag_name in values:
        flag = values[flag_name]
        default = f" (default: {flag.default})" if flag.default else ""
        choices = getattr(flag.parser, "enum_values", None)
        value = "" if flag.boolean else f"={'|'.join(choices)}" if choices else "=..."
        # absl adds the choices in front and, on a line of its own, that a flag may be repeated.
        help_text = flag.help.partition(";\n")[0].removeprefix(f"<{'|'.join(choices or ())}>: ")
        lines.append(f"  --{flag_name}{value}\n      {help_text}{default}")
    if verb.has_config:
        lines += ["", config_flags.help_text()]
    return "\n".join(lines)


def _required(values: flags.FlagValues, name: str) -> str:
    if not values[name].value:
        raise UsageError(f"--{name}: missing; {values[name].help}")
    return values[name].value


def _path(values: flags.FlagValues, name: str) -> Path:
    return Path(_required(values, name)).expanduser()


def _define_train(values: flags.FlagValues) -> None:
    flags.DEFINE_string("workdir", None, "the run's folder; the same command in it goes on", flag_values=values)
    flags.DEFINE_bool("overwrite", False, "delete the run in the workdir and start anew", flag_values=values)
    flags.DEFINE_bool(
        "dry_run", False, "print the parameter table, the data and the step's cost, and end", flag_values=values
    )
    flags.DEFINE_enum(
        "distributed",
        "auto",
        MODES,
        "how the processes of one run find each other",
        flag_values=values,
    )
    _define_skip_bad(values)
    flags.DEFINE_integer("expected_devices", None, "refuse to start with another number of devices", flag_values=values)


def _define_skip_bad(values: flags.FlagValues) -> None:
    help = "leave out pictures that cannot be read, naming each, instead of refusing"
    flags.DEFINE_bool("skip_bad", False, help, flag_values=values)


def _train(values: flags.FlagValues, config: Config) -> None:
    workdir = None if values["dry_run"].value else _path(values, "workdir")
    from bloodcell_jax.train.platform import prepare_platform

    prepare_platform(config.train.deterministic)
    import jax

    from bloodcell_jax.train.distributed import check_devices, device_map, join_processes

    join_processes(values["distributed"].value)
    check_devices(values["expected_devices"].value)
    is_main = jax.process_index() == 0
    if values["skip_bad"].value:
        config.data.skip_bad = True
    if not is_main:
        # One process speaks; the others would say the same of the same data.
        logging.getLogger("bloodcell_jax").setLevel(logging.CRITICAL)
    if is_main:
        print(f"devices: {device_map()}", file=sys.stderr, flush=True)
    if values["dry_run"].value:
        from bloodcell_jax.train.dry_run import describe_run

        print(describe_run(config))
        return
    from bloodcell_jax.train.job import train_and_evaluate

    result = train_and_evaluate(config, workdir, overwrite=values["overwrite"].value)
    if not is_main:
        return
    for split, metrics in result.metrics.items():
        print(f"{split}: accuracy {metrics['accuracy']:.4f}, macro F1 {metrics['f1_macro']:.4f}, n {metrics['n']}")
    print(f"report: {result.report}")


def _define_source(values: flags.FlagValues) -> None:
    """Define the flags of a verb that reads a data source without a configuration; `_load_source` takes them."""
    kinds = "npz:PATH, folder:PATH, zip:PATH, medmnist:NAME_OR_PATH, tfds:NAME or synthetic:N"
    flags.DEFINE_string("source", None, kinds, flag_values=values)
    flags.DEFINE_string("data_dir", None, "folder of prepared data sets and local copies", flag_values=values)
    flags.DEFINE_integer("image_size", 96, "pixels, as data.image_size of training", lower_bound=16, flag_values=values)
    flags.DEFINE_string("crop", "200", "pixels of the centre crop of picture files, or none", flag_values=values)
    flags.DEFINE_list("class_names", None, "names in label order; unset: taken from the source", flag_values=values)
    _define_skip_bad(values)


def _load_source(values: flags.FlagValues):
    from bloodcell_jax.data.sources import load_source

    return load_source(
        _required(values, "source"),
        image_size=values["image_size"].value,
        crop=_crop(values["crop"].value),
        class_names=tuple(values["class_names"].value or ()),
        skip_bad=values["skip_bad"].value,
        data_dir=values["data_dir"].value,
    )


def _define_prepare(values: flags.FlagValues) -> None:
    _define_source(values)
    flags.DEFINE_string("name", None, "what to call it; unset: by the source", flag_values=values)
    flags.DEFINE_string("clean", None, "clean.json of the verb audit; what it names is left out", flag_values=values)


def _prepare(values: flags.FlagValues) -> None:
    from bloodcell_jax.data.cleaning import remove_rows
    from bloodcell_jax.data.dataset import check_learnable
    from bloodcell_jax.data.tfds_sets import default_name, prepare

    data_dir, dataset = _required(values, "data_dir"), _load_source(values)
    if values["clean"].value:
        dataset = remove_rows(dataset, values["clean"].value)
    check_learnable(dataset)
    name = prepare(dataset, data_dir, values["name"].value or default_name(values["source"].value))
    print(f"{len(dataset):,} pictures of {len(dataset.class_names)} classes; train on them by")
    print(f"  --config.data.source=tfds:{name} --config.data.data_dir={data_dir}")


def _define_evaluate(values: flags.FlagValues) -> None:
    _define_model(values)
    flags.DEFINE_string(
        "source", None, "data to evaluate on; unset: the run's own, with its splits", flag_values=values
    )
    flags.DEFINE_string(
        "split", None, "train, val, test or all; unset: test, or val where there is none", flag_values=values
    )
    flags.DEFINE_string("output", None, "folder for the results; unset: eval/SPLIT of the workdir", flag_values=values)
    _define_skip_bad(values)


def _define_predict(values: flags.FlagValues) -> None:
    _define_model(values)
    flags.DEFINE_multi_string(
        "input", [], "a picture, folder, zip or glob pattern; may be given several times", flag_values=values
    )
    flags.DEFINE_string("output", None, "the CSV file to write", flag_values=values)
    flags.DEFINE_bool("strict", False, "end with exit code 3 if any picture cannot be read", flag_values=values)


def _define_model(values: flags.FlagValues) -> None:
    flags.DEFINE_string("workdir", None, "folder of a trained run", flag_values=values)
    flags.DEFINE_string("checkpoint", "best", "best, last or a step", flag_values=values)
    flags.DEFINE_string(
        "crop", None, "pixels of the centre crop of picture files, or none; unset: as trained", flag_values=values
    )


def _classifier(values: flags.FlagValues):
    from bloodcell_jax.evaluate.classifier import Classifier
    from bloodcell_jax.train.platform import prepare_platform

    prepare_platform()
    classifier = Classifier.from_workdir(_path(values, "workdir"), checkpoint=values["checkpoint"].value)
    if values["crop"].value is not None:
        classifier.config.data.crop = _crop(values["crop"].value)
    return classifier


def _crop(text: str) -> int | None:
    if text == "none":
        return None
    if not text.isdecimal() or int(text) == 0:
        raise UsageError(f"--crop={text}: give a number of pixels, or none")
    return int(text)


def _evaluate(values: flags.FlagValues) -> None:
    from bloodcell_jax.evaluate.command import evaluate_source

    classifier = _classifier(values)
    folder, metrics = evaluate_source(
        classifier,
        values["source"].value,
        values["split"].value,
        values["output"].value,
        skip_bad=values["skip_bad"].value,
    )
    print(f"{folder}: accuracy {metrics['accuracy']:.4f}, macro F1 {metrics['f1_macro']:.4f}, n {metrics['n']}")


def _predict(values: flags.FlagValues) -> None:
    from bloodcell_jax.evaluate.command import predict_files

    inputs, output = values["input"].value, _path(values, "output")
    if not inputs:
        raise UsageError("--input: missing; a picture, folder, zip or glob pattern")
    count = predict_files(lambda: _classifier(values), inputs, output, strict=values["strict"].value)
    print(f"{output}: {count} pictures")


def _define_audit(values: flags.FlagValues) -> None:
    _define_source(values)
    flags.DEFINE_string("output", None, "folder for audit.json, clean.json and index.html", flag_values=values)
    flags.DEFINE_string(
        "predictions", None, "out-of-fold predictions.csv of the source; ranks label errors", flag_values=values
    )


def _audit(values: flags.FlagValues) -> None:
    from bloodcell_jax.data.audit.findings import audit
    from bloodcell_jax.report.audit_page import prepare_output, train_command, write_audit

    source, output = _required(values, "source"), _required(values, "output")
    folder, crop = prepare_output(output), _crop(values["crop"].value)
    dataset = _load_source(values)
    found = audit(dataset, crop=crop, predictions=values["predictions"].value)
    data_dir = values["data_dir"].value
    page = write_audit(found, folder, data_dir=data_dir)
    print(f"{source}: {len(dataset):,} pictures, {len(dataset.class_names)} classes")
    print("\n".join(found.summary))
    print(f"page: {page}")
    print(f"removals: {folder / 'clean.json'}; delete an entry to keep its picture, and train by\n")
    print(f"  {train_command(found, folder, data_dir)}")


def _define_convert(values: flags.FlagValues) -> None:
    flags.DEFINE_string("input", None, "a checkpoint in any published layout, or a published name", flag_values=values)
    flags.DEFINE_string("output", None, "the new .safetensors file", flag_values=values)
    flags.DEFINE_string("variant", None, "timm's model name; unset: told from the shapes", flag_values=values)


def _convert(values: flags.FlagValues) -> None:
    from bloodcell_jax.weights import convert

    source, target = _required(values, "input"), _path(values, "output")
    info = convert(source, target, values["variant"].value)
    classes = "no head" if info.num_classes is None else f"{info.num_classes} classes"
    print(f"{target}: {info.variant}, {classes}, licence {info.licence or 'not known'}, from {info.source}")


def _define_report(values: flags.FlagValues) -> None:
    flags.DEFINE_string("workdir", None, "folder of a run", flag_values=values)


def _report(values: flags.FlagValues) -> None:
    from bloodcell_jax.report import write_report

    print(f"report: {write_report(_path(values, 'workdir'))}")


VERBS = {
    "prepare": Verb(
        "write any source as a TFDS data set, which loads faster and holds what was cleaned",
        """
  prepare --source=zip:PBC_dataset_normal_DIB.zip --name=pbc --data_dir=data
  prepare --source=npz:cells.npz --clean=audit/clean.json --data_dir=data
  prepare --source=medmnist:bloodmnist_128 --image_size=128 --data_dir=data""",
        _define_prepare,
        _prepare,
    ),
    "train": Verb(
        "train a classifier, evaluate it and write its report; the same command resumes",
        """
  train --config=quickstart --workdir=runs/first
  train --config=configs/pbc_scratch.py --workdir=runs/pbc --config.data.source=zip:pbc.zip
  train --config=convnext_base --workdir=runs/base --config.model.weights=base.safetensors --dry_run""",
        _define_train,
        _train,
        has_config=True,
    ),
    "evaluate": Verb(
        "metrics of a trained model on a split or another source",
        """
  evaluate --workdir=runs/first --split=test
  evaluate --workdir=runs/first --source=folder:other_lab --output=results""",
        _define_evaluate,
        _evaluate,
    ),
    "predict": Verb(
        "classify pictures into a CSV file",
        """
  predict --workdir=runs/first --input=slides/ --output=cells.csv
  predict --workdir=runs/first --input='new/*.png' --input=more.zip --output=cells.csv""",
        _define_predict,
        _predict,
    ),
    "audit": Verb(
        "find duplicates, planted pictures, conflicting labels, outliers, leaks and shortcuts in a data set",
        """
  audit --source=folder:cells --output=audit
  audit --source=npz:cells.npz --class_names=basophil,eosinophil,monocyte --output=audit
  train --config=pbc_scratch --config.data.source=folder:cells --config.data.clean=audit/clean.json --workdir=run""",
        _define_audit,
        _audit,
    ),
    "convert": Verb(
        "any published ConvNeXt checkpoint into this library's safetensors",
        """
  convert --input=convnext_base_22k_1k_224.pth --output=convnext_base.safetensors
  convert --input=convnext_tiny.fb_in22k --output=tiny.safetensors""",
        _define_convert,
        _convert,
    ),
    "report": Verb(
        "rebuild a run's HTML report",
        """
  report --workdir=runs/first""",
        _define_report,
        _report,
    ),
}


def console() -> None:
    """Run the console script `bloodcell`."""
    sys.exit(main(sys.argv))
