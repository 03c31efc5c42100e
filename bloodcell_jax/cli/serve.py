"""The verb `serve`."""

from absl import flags

from bloodcell_jax.cli.data_flags import check_no_column
from bloodcell_jax.cli.model_flags import define_model, load_classifier
from bloodcell_jax.cli.verb import Verb, say, value_of
from bloodcell_jax.devices.process_end import end_process
from bloodcell_jax.errors import UsageError
from bloodcell_jax.extras import check_extra

# What the extra [serve] brings, and the package that holds each module.
_MODULES = {"starlette": "starlette", "uvicorn": "uvicorn", "python_multipart": "python-multipart"}


def _define_serve(values: flags.FlagValues) -> None:
    define_model(values)
    flags.DEFINE_integer(
        "port",
        8000,
        "port of the page and the API; 0: any that is free, which is printed",
        lower_bound=0,
        upper_bound=65535,
        flag_values=values,
    )
    flags.DEFINE_string(
        "host",
        "127.0.0.1",
        "name or address that is served; 0.0.0.0: all of this machine, for everybody who reaches it",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "max_upload_mb", 256, "MiB of one request; the page sends a folder in parts", lower_bound=1, flag_values=values
    )
    flags.DEFINE_integer("max_images", 5000, "images of one request, in zips too", lower_bound=1, flag_values=values)
    flags.DEFINE_integer(
        "max_waiting",
        10000,
        "images of all requests that may wait for an answer; more are refused with status 429",
        lower_bound=1,
        flag_values=values,
    )


def _serve(values: flags.FlagValues) -> None:
    for module, package in _MODULES.items():
        check_extra("serve", module, "serve", package=package)
    check_no_column(values)
    from bloodcell_jax.serve.limits import Limits
    from bloodcell_jax.serve.server import open_listener, serve

    images, waiting = value_of(values, "max_images"), value_of(values, "max_waiting")
    if waiting < images:
        raise UsageError(f"--max_waiting={waiting}: a request may have --max_images={images}; give at least as many")
    limits = Limits(value_of(values, "max_upload_mb") * 2**20, images, waiting)
    host = value_of(values, "host")
    with open_listener(host, value_of(values, "port")) as listener:
        has_ended = serve(load_classifier(values), listener, host, limits, say)
    if not has_ended:
        end_process(0)


SERVE = Verb(
    "serve a local web page and an API that classify images",
    """
  serve --workdir=runs/first
  serve --model=pbc_cnn --port=9000
  serve --workdir=runs/first --host=0.0.0.0 --max_upload_mb=1024""",
    _define_serve,
    _serve,
)
