"""Models on the Hugging Face hub: their names, their download, and what the hub answers in words that help.

The package huggingface_hub (extra `[hub]`) does the work. It finds the user's token by itself, in `HF_TOKEN` or where
`hf auth login` left it. This library never sees it, so no log, file or message of it can hold one.
"""

import contextlib
import functools
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bloodcell_jax.errors import DataError, UsageError
from bloodcell_jax.extras import check_extra
from bloodcell_jax.weights.info import MODEL_NAME

logger = logging.getLogger(__name__)

PREFIX = "hf:"
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
# A branch, a tag or a commit; the client makes a file of this name in its cache.
_REVISION = re.compile(r"(?!.*\.\.)\w[\w./-]*", re.ASCII)
_LOGIN = "log in by `hf auth login`, or set HF_TOKEN"


def is_repository(name: str) -> bool:
    """Return whether a text is OWNER/NAME."""
    return _REPOSITORY.fullmatch(name) is not None


@functools.cache
def hub_file(name: str) -> Path:
    """Return the file of `hf:OWNER/NAME[@REVISION]`, which is downloaded once into the cache of huggingface_hub.

    A revision is a branch, a tag or a commit. The hub is asked once in a process: a branch may move, and the facts of a
    model and its parameters are to come from the same commit.

    Raises:
      UsageError: the name has another form, or huggingface_hub is not installed.
      DataError: there is no such file, it may not be read, or the hub cannot be reached.
    """
    repository, mark, revision = name.removeprefix(PREFIX).partition("@")
    if not is_repository(repository) or (mark and not _REVISION.fullmatch(revision)):
        raise UsageError(f"{name}: not the name of a repository; write hf:OWNER/NAME, or hf:OWNER/NAME@REVISION")
    hub = import_hub(name)
    by_hand = f"download {MODEL_NAME} of the repository in another way, and give its path"
    with explained(name, offline=by_hand):
        path = Path(hub.hf_hub_download(repository, MODEL_NAME, revision=revision or None))
    logger.info("%s: commit %s", name, path.parent.name)
    return path


def import_hub(what: str) -> Any:
    """Return the package huggingface_hub; `what` needs it.

    Raises:
      UsageError: it is not installed.
    """
    check_extra(what, "huggingface_hub", "hub")
    import huggingface_hub  # pyright: ignore[reportMissingImports]

    return huggingface_hub


@contextlib.contextmanager
def explained(what: str, *, offline: str) -> Iterator[None]:
    """Turn errors of huggingface_hub into one line about `what`, without the hub's own text.

    Args:
      what: the name that the user gave.
      offline: what the user can do if the hub cannot be reached.
    """
    from huggingface_hub import errors  # pyright: ignore[reportMissingImports]

    unreachable = f"{what}: the Hugging Face hub cannot be reached; {offline}"
    try:
        yield
    except errors.LocalTokenNotFoundError as error:
        raise UsageError(f"{what}: no token of the hub is known; {_LOGIN}") from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise DataError(unreachable) from error
    except errors.GatedRepoError as error:
        raise DataError(f"{what}: its owner asks for consent; accept the terms on its page, then {_LOGIN}") from error
    except errors.RevisionNotFoundError as error:
        raise DataError(f"{what}: the repository has no such revision; look at its list of commits") from error
    except errors.EntryNotFoundError as error:
        raise DataError(f"{what}: the repository has no {MODEL_NAME}; name one that has") from error
    except errors.RepositoryNotFoundError as error:
        raise DataError(f"{what}: no such repository, or a private one; check the name, or {_LOGIN}") from error
    except errors.HfHubHTTPError as error:
        raise _refusal(what, error.response.status_code) from error
    # Of the HTTP library that the hub's client uses, which is another one in each of its major versions.
    except errors.HTTPError as error:  # pyright: ignore[reportPrivateImportUsage]
        raise DataError(unreachable) from error


def _refusal(what: str, status: int) -> DataError | UsageError:
    if status == 401:
        return UsageError(f"{what}: the hub does not accept your token; {_LOGIN}")
    if status == 403:
        return UsageError(f"{what}: your token does not allow this; take one with write access to that owner")
    return DataError(f"{what}: the hub answered with status {status}; try again later, or look at its status page")
