"""Repositories of the Hugging Face hub, read at one commit.

A branch or tag can move between two requests. It is therefore resolved to a commit once, and every file of a
repository is requested at that commit. Without a network, branches and tags are those of the local cache.

The hub's client is imported when it is used: every command imports this module, and few of them ask the hub.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from acs_core.errors import ModelError
from acs_core.plain_text import shorten

DEFAULT_BRANCH = "main"
LOGIN = "log in with `hf auth login`"
_CLIENT_LOGGER = "huggingface_hub.utils._http"
_RETRY_WORDS = ("thrown while requesting", "Retrying in")
log = logging.getLogger(__name__)
_COMMIT = re.compile("[0-9a-f]{40}")


def is_commit(revision: str) -> bool:
    """Return whether ``revision`` is a full commit hash, which is always the same files."""
    return _COMMIT.fullmatch(revision) is not None


@dataclass(frozen=True)
class HubRepository:
    """A repository of the hub at one commit; see :meth:`resolve`.

    Attributes:
        name: hub id, owner/name.
        commit: the commit, 40 hex digits.
    """

    name: str
    commit: str

    @classmethod
    def resolve(cls, name: str, revision: str | None = None) -> HubRepository:
        """Return the repository ``name`` at the commit that ``revision`` is now.

        Args:
            name: hub id, owner/name.
            revision: branch, tag or commit; by default the branch main.

        Raises:
            ModelError: there is no such repository or revision, it needs a login, or the hub cannot be reached and the
                local cache does not know the revision.
        """
        from huggingface_hub import HfApi

        with _explained(name, revision):
            return cls(name, HfApi().resolve_revision(name, revision=revision).resolved)

    def find(self, file_name: str) -> Path | None:
        """Return the path of a file in the local cache, downloaded if it is not there yet; None if the repository has
        no such file at this commit, or if the hub is out of reach and the cache does not have it.

        Raises:
            ModelError: the hub refuses the file, or the download fails.
        """
        from huggingface_hub import hf_hub_download, try_to_load_from_cache
        from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

        cached = try_to_load_from_cache(self.name, file_name, revision=self.commit)
        if cached is not None:  # a path, or a note that there is no such file at this commit
            return Path(cached) if isinstance(cached, str) else None
        with _explained(self.name, self.commit):
            try:
                return Path(hf_hub_download(self.name, file_name, revision=self.commit))
            except LocalEntryNotFoundError as error:
                if isinstance(error.__cause__, HfHubHTTPError):  # the hub was reached
                    raise error.__cause__ from error
                return None
            except EntryNotFoundError:
                return None

    def get(self, file_name: str) -> Path:
        """Return the path of a file in the local cache, downloaded if it is not there yet.

        Raises:
            ModelError: there is no such file, or it cannot be downloaded.
        """
        found = self.find(file_name)
        if found is None:
            raise ModelError(
                f"{file_name} of commit {self.commit} is neither in the local cache nor can it be downloaded: check "
                f"the network, or run `hf download {self.name} --revision {self.commit}` where there is one"
            )
        return found


class _Retries(logging.Filter):
    """Filter that replaces the hub client's two lines for every failed request by one line for all of them."""

    def __init__(self) -> None:
        super().__init__()
        self._said = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Return False for the client's messages about retries, after a line of our own for the first."""
        if not any(words in str(record.msg) for words in _RETRY_WORDS):
            return True
        if not self._said:
            self._said = True
            log.warning("the hub does not answer: trying again for half a minute at most (offline: HF_HUB_OFFLINE=1)")
        return False


@contextmanager
def _few_lines_about_retries() -> Iterator[None]:
    client, retries = logging.getLogger(_CLIENT_LOGGER), _Retries()
    client.addFilter(retries)
    try:
        yield
    finally:
        client.removeFilter(retries)


@contextmanager
def _explained(name: str, revision: str | None) -> Iterator[None]:
    """Convert the errors of the hub's client to a ModelError that says what to do."""
    from huggingface_hub import errors

    wanted = revision or DEFAULT_BRANCH
    try:
        with _few_lines_about_retries():
            yield
    except errors.GatedRepoError as error:
        raise ModelError(
            f"the hub gives {name} only to those who accepted its terms: accept them on the repository's page, and "
            f"{LOGIN}"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelError(
            f"the hub has no repository {name}, or shows it only to its owner: check the name, or {LOGIN}"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelError(f"the hub's repository {name} has no revision {shorten(wanted)}: check it") from error
    except (errors.RevisionResolutionError, errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise ModelError(
            f"neither a folder nor a repository that can be read: the hub is out of reach, and the local cache has no "
            f"revision {shorten(wanted)} of {name}. Check the network (and HF_HUB_OFFLINE), name a commit that is in "
            f"the cache, or give a folder ({first_line(error)})"
        ) from error
    except Exception as error:  # the HTTP client, the file system: various types
        raise ModelError(
            f"neither a folder nor a repository that can be read ({type(error).__name__}: {first_line(error)}): check "
            "the name, the revision and the network, or give a folder"
        ) from error


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, at most 500 characters."""
    return (str(error).strip().splitlines() or ["no message"])[0][:500]
