"""A trained model as a repository of the Hugging Face hub."""

import json
import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from bloodcell_jax.errors import UsageError
from bloodcell_jax.export.card import LICENSE_NAME, facts
from bloodcell_jax.export.folders import write_model
from bloodcell_jax.export.trained_model import TrainedModel
from bloodcell_jax.weights.hub import explained, import_hub, is_repository

# Licenses of weights that this library names, and the hub too: by the hub, their names are in lower case.
_KNOWN_LICENSES = {"apache-2.0", "bsd-3-clause", "cc-by-4.0", "cc-by-nc-4.0", "mit"}

_USE = """\
```sh
pip install 'bloodcell_jax[hub]'
bloodcell predict --model=hf:{repo} --input=cells/ --output=cells.csv
```

```python
import bloodcell_jax as bc

classifier = bc.Classifier.from_pretrained("hf:{repo}")
probabilities = classifier.predict(images)  # uint8 [n, h, w, 3], or paths
```

Another run starts from it with `--config.model.weights=hf:{repo}`.
"""


_OFFLINE = "give the command again when it can; until then, `export --format=safetensors` writes the model to a folder"


class Pushed(NamedTuple):
    """Where a model was put: the address of the repository, and the commit."""

    address: str
    commit: str


def check_push(repo: str) -> None:
    """Check what can be checked before a model is read: the name, the package, the network and the token.

    Raises:
      UsageError: `repo` is not OWNER/NAME, huggingface_hub is not installed, or there is no valid token.
      DataError: the hub cannot be reached.
    """
    if not is_repository(repo):
        raise UsageError(f"--repo={repo}: not the name of a repository; write OWNER/NAME")
    hub = import_hub("push")
    with explained(f"--repo={repo}", offline=_OFFLINE):
        hub.HfApi().whoami()


def push_model(model: TrainedModel, repo: str) -> Pushed:
    """Write a model into a repository of the hub, as one commit; a repository that is not there is made, private.

    Args:
      model: the model.
      repo: OWNER/NAME.

    Raises:
      UsageError: the token does not allow it.
      DataError: the hub cannot be reached, or refuses.
    """
    hub = import_hub("push")
    api = hub.HfApi()
    with tempfile.TemporaryDirectory() as folder:
        write_repository(Path(folder), model, repo)
        files = sorted(Path(folder).iterdir())
        with explained(f"--repo={repo}", offline=_OFFLINE):
            address = api.create_repo(repo, private=True, exist_ok=True)
            commit = api.create_commit(
                repo,
                [hub.CommitOperationAdd(path_in_repo=path.name, path_or_fileobj=str(path)) for path in files],
                commit_message=f"{model.config.model.variant} of step {model.record.step:,}, by bloodcell_jax",
            )
    return Pushed(str(address), commit.oid)


def write_repository(folder: Path, model: TrainedModel, repo: str) -> None:
    """Write the files of a repository: the model, its facts as `config.json`, its card and its license."""
    model = replace(model, info=replace(model.info, source=without_folders(model.info.source)))
    write_model(folder, model, _USE.format(repo=repo), head=head(model))
    (folder / "config.json").write_text(json.dumps(facts(model), indent=2) + "\n", encoding="utf-8")


def without_folders(source: str) -> str:
    """Return where weights come from without this machine's folders: zip:/home/ann/cells.zip becomes zip:cells.zip."""
    return ", from ".join(re.sub(r"(\w+:).*/(?=[^/])", r"\1", part) for part in source.split(", from "))


def head(model: TrainedModel) -> str:
    """Return the YAML at the beginning of a card, which the hub reads (huggingface.co/docs/hub/model-cards)."""
    licence = model.info.licence
    if not licence:
        lines = ["license: unknown"]
    elif licence.lower() in _KNOWN_LICENSES:
        lines = [f"license: {licence.lower()}"]
    else:
        lines = ["license: other", f"license_name: {json.dumps(licence)}", f"license_link: {LICENSE_NAME}"]
    lines += ["library_name: bloodcell_jax", "pipeline_tag: image-classification", "tags:"]
    family = "custom-cnn" if model.config.model.variant == "custom_cnn" else "convnext"
    lines += [f"- {tag}" for tag in ("blood-cells", family, "jax", "flax")]
    return "\n".join(["---", *lines, "---", "", ""])
