"""Converting any published checkpoint to this library's safetensors."""

from pathlib import Path

from bloodcell_jax.errors import UsageError
from bloodcell_jax.models import create_model
from bloodcell_jax.models.registry import MODELS
from bloodcell_jax.models.variants import VARIANTS
from bloodcell_jax.weights.catalog import find_part
from bloodcell_jax.weights.files import read_file
from bloodcell_jax.weights.info import WeightsInfo
from bloodcell_jax.weights.layouts import recognize
from bloodcell_jax.weights.loading import fit, inferred_info, say_license, say_part
from bloodcell_jax.weights.model_file import RUN_KEY, read_model_file, write_model_file
from bloodcell_jax.weights.safetensors_file import write_safetensors
from bloodcell_jax.weights.structure import infer_variant


def convert(source: Path | str, target: Path | str, variant: str | None = None) -> WeightsInfo:
    """Write the weights of `source` to `target` as safetensors.

    Args:
      source: a file in any published layout, the workdir of a finished run, or a name in the catalog; `PATH#NAME`
        takes the network under a name if the file holds several.
      target: a new file; its name ends in .safetensors.
      variant: name of the ConvNeXt; None: it is inferred from the shapes.

    Returns:
      The info that was written into the metadata.

    Raises:
      DataError: the source cannot be read or does not fit the variant.
      MachineError: the target cannot be written.
      UsageError: the target or the variant cannot be used.
    """
    target = Path(target)
    if target.suffix != ".safetensors":
        raise UsageError(f"--output={target}: the name must end in .safetensors; change it")
    if target.exists():
        raise UsageError(f"--output={target}: exists already; name a new file")
    if not target.absolute().parent.is_dir():
        raise UsageError(f"--output={target}: no folder {target.parent}; create it")
    if variant is not None and variant not in MODELS:
        raise UsageError(f"--variant={variant}: no such variant; there are {', '.join(MODELS)}")
    source, part = find_part(source)
    stored = read_file(source)
    if stored.info is not None and RUN_KEY in stored.metadata:
        if variant not in (None, stored.info.variant):
            raise UsageError(f"--variant={variant}: {source} is the model of a run, a {stored.info.variant}")
        say_license(source, stored.info)
        write_model_file(target, *read_model_file(source), stored.info)
        return stored.info
    if variant is not None and variant not in VARIANTS:
        raise UsageError(f"--variant={variant}: only the model of a run is one; there are {', '.join(VARIANTS)}")
    weights = recognize(source, stored, part)
    say_part(source, weights)
    info = stored.info or inferred_info(source, weights, variant or infer_variant(source, weights))
    say_license(source, info)
    params, _ = fit(source, weights, create_model(info.variant, info.num_classes or 1000))
    write_safetensors(target, params, info)
    return info
