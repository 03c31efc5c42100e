"""The command line as a whole: which verb, its flags, and one line with an exit code for what a user can mend."""

import contextlib
import errno
import logging
import os
import sys
import textwrap
import warnings
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from absl import flags
from absl import logging as absl_logging

from bloodcell_jax.cli import config_flags
from bloodcell_jax.cli.audit import AUDIT
from bloodcell_jax.cli.benchmark import BENCHMARK
from bloodcell_jax.cli.convert import CONVERT
from bloodcell_jax.cli.crossval import CROSSVAL
from bloodcell_jax.cli.evaluate import EVALUATE
from bloodcell_jax.cli.export import EXPORT
from bloodcell_jax.cli.find_lr import FIND_LR
from bloodcell_jax.cli.plan import PLAN
from bloodcell_jax.cli.predict import PREDICT
from bloodcell_jax.cli.prepare import PREPARE
from bloodcell_jax.cli.push import PUSH
from bloodcell_jax.cli.report import REPORT
from bloodcell_jax.cli.serve import SERVE
from bloodcell_jax.cli.sweep import SWEEP
from bloodcell_jax.cli.table1 import TABLE1
from bloodcell_jax.cli.train import TRAIN
from bloodcell_jax.cli.verb import Verb
from bloodcell_jax.devices.allocator import tune_allocator
from bloodcell_jax.devices.process_end import end_process
from bloodcell_jax.errors import MachineError, UsageError, UserError, is_out_of_memory, memory_error
from bloodcell_jax.names import did_you_mean, visible

VERBS = {
    "prepare": PREPARE,
    "train": TRAIN,
    "evaluate": EVALUATE,
    "predict": PREDICT,
    "serve": SERVE,
    "audit": AUDIT,
    "convert": CONVERT,
    "export": EXPORT,
    "push": PUSH,
    "report": REPORT,
    "find_lr": FIND_LR,
    "crossval": CROSSVAL,
    "sweep": SWEEP,
    "table1": TABLE1,
    "benchmark": BENCHMARK,
    "plan": PLAN,
}


def main(argv: Sequence[str]) -> int:
    """Run the command line `argv` (program first) and return its exit code."""
    # Orbax and JAX warn through absl and logging of things that are this library's business, not the user's.
    absl_logging.set_verbosity(absl_logging.FATAL)
    _show_messages()
    try:
        code = _run(list(argv))
        sys.stdout.flush()
        return code
    except UserError as error:
        print(f"bloodcell: {error}", file=sys.stderr)
        return error.exit_code
    except (MemoryError, RuntimeError) as error:
        # Everything else is a bug and keeps its traceback.
        if not is_out_of_memory(error):
            raise
        print(f"bloodcell: {memory_error(error)}", file=sys.stderr)
        return MachineError.exit_code
    except KeyboardInterrupt:
        print("bloodcell: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of a pipe (head, less) went away; nothing is left to say.
        _drop_stdout()
        return 0
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        return _refused(error)


# What a path or the machine may bring about in any place; every other OSError is a bug where it was not expected.
_REFUSALS = {errno.ENAMETOOLONG, errno.ELOOP, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE}


def _drop_stdout() -> None:
    """Let what is still to be printed go nowhere: Python would fail on it once more at its end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _refused(error: OSError) -> int:
    """Print one line on what the machine refused, and return the exit code."""
    if error.filename is None:
        _drop_stdout()
    name = "standard output" if error.filename is None else visible(os.fsdecode(error.filename))
    name = name if len(name) <= 200 else f"{name[:90]} ... {name[-90:]}"
    mistake = error.errno in (errno.ENAMETOOLONG, errno.ELOOP)
    print(f"bloodcell: {name}: {error.strerror}; {'name another' if mistake else 'mend that'}", file=sys.stderr)
    return UsageError.exit_code if mistake else MachineError.exit_code


def _hide_closed_loops() -> None:
    """Hide what is printed of event loops, dozens of times, after a checkpoint that could not be written.

    The failure itself is raised. What is late for its loop, or a loop that got no file handle, has nothing to add.
    """
    warnings.filterwarnings("ignore", r"coroutine .* was never awaited", RuntimeWarning)
    show = sys.unraisablehook

    def unraisable(fault: Any) -> None:
        if not any(words in str(fault.exc_value) for words in ("Event loop is closed", "EventLoop' object has no")):
            show(fault)

    sys.unraisablehook = unraisable


def _hide_cleaning() -> None:
    """Hide what the process that cleans up after workers has cleaned; it would stand after the line of a run's end.

    That process gets these options when it starts.
    """
    sys.warnoptions.append("ignore:resource_tracker:UserWarning")


class _Messages(logging.Handler):
    """Prints what the library has to say as the command line's own lines."""

    def emit(self, record: logging.LogRecord) -> None:
        # Tables have several lines; what warns of a file has one, whatever its name.
        keep = "\n" if record.levelno < logging.WARNING else ""
        print(f"bloodcell: {visible(record.getMessage(), keep)}", file=sys.stderr, flush=True)


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
        hint = did_you_mean(name, VERBS)
        raise UsageError(f"{name}: no such verb; {f'{hint} There' if hint else 'there'} are {', '.join(VERBS)}")
    verb = VERBS[name]
    if any(word in ("-h", "--help") for word in rest):
        print(help_of(verb, rest))
        return 0
    verb.call(*_parse(verb, name, rest))
    return 0


def _parse(verb: Verb, name: str, words: list[str]) -> tuple:
    """Return what `verb.run` takes: the flags and, if the verb has one, the configuration."""
    values, command = verb.create_flags(), [name, *words]
    try:
        if verb.has_config:
            left, config = config_flags.parse(values, command)
        else:
            values.set_gnu_getopt(verb.words is not None)
            left = values(command)[1:]
    except flags.UnrecognizedFlagError as error:
        hint = f"{did_you_mean(error.flagname, values, '--')} {name} --help lists them".strip()
        raise UsageError(f"--{error.flagname}: no such flag of {name}; {hint}") from error
    except flags.Error as error:
        raise UsageError(" ".join(str(error).removeprefix("flag ").split())) from error
    if left and verb.words is not None and values[verb.words].present:
        values[verb.words].value = [*(values[verb.words].value or ()), *left]
        left = []
    if left:
        raise UsageError(f"{left[0]}: unexpected; flags are written --name=value")
    return (values, config) if verb.has_config else (values,)


def _overview() -> str:
    lines = ["Train and use single-cell classifiers.", "", "  VERB --help shows a verb's flags.", ""]
    lines += [f"  {name:10} {verb.summary}" for name, verb in VERBS.items()]
    return "\n".join(lines)


def help_of(verb: Verb, words: Sequence[str] = ()) -> str:
    """Return what `VERB --help` prints; if `words` name a configuration, with what its file says and sets."""
    values = verb.create_flags()
    chosen = config_flags.chosen(words) if verb.has_config else config_flags.NOTHING_CHOSEN
    lines = [verb.summary, "", *([chosen.docstring, ""] if chosen.docstring else [])]
    lines += [verb.usage.strip("\n"), "", "Flags:"]
    for flag_name in values:
        flag = values[flag_name]
        shown = ",".join(flag.default) if isinstance(flag.default, list) else flag.default
        default = f" (default: {shown})" if shown else ""
        choices = getattr(flag.parser, "enum_values", None)
        value = "" if flag.boolean else f"={'|'.join(choices)}" if choices else "=..."
        # absl adds the choices in front and, on a line of its own, that a flag may be repeated.
        help_text = flag.help.partition(";\n")[0].removeprefix(f"<{'|'.join(choices or ())}>: ")
        lines.append(f"  --{flag_name}{value}\n      {help_text}{default}")
    if verb.has_source:
        from bloodcell_jax.data.sources import source_help

        lines += ["", "Sources:", textwrap.indent(source_help(), "  ")]
    if verb.has_config:
        from bloodcell_jax.augment.operations import help_text

        lines += ["", config_flags.help_text(chosen), "", "Augmentation:", textwrap.indent(help_text(), "  ")]
    return "\n".join(lines)


def console() -> None:
    """Run the console script `bloodcell`, or `launch.py`."""
    tune_allocator()
    _hide_closed_loops()
    _hide_cleaning()
    code = main(sys.argv)
    if code == MachineError.exit_code:
        # Threads of Orbax may wait for ever for what the machine refused.
        end_process(code)
    sys.exit(code)
