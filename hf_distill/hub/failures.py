"""Turns errors of the Hub and the network into one sentence with a remedy."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import HfApi, constants, get_token, is_offline_mode
from huggingface_hub.errors import (
    BadRequestError,
    HfHubHTTPError,
    HTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

OFFLINE = "HF_HUB_OFFLINE is set, so nothing can be uploaded: unset it (HF_HUB_OFFLINE=0)."
TOKEN_PAGE = "https://huggingface.co/settings/tokens"
_LOGIN = f"log in with `hf auth login`, set HF_TOKEN, or give `--token` (tokens that may write: {TOKEN_PAGE})"


class PushError(OSError):
    """A push failed or was interrupted; the local folder is unchanged."""


@contextmanager
def as_push_error(repo: str, token: str | None, kept: str) -> Iterator[None]:
    """Turn errors of the Hub, the network and their libraries into a `PushError`.

    Args:
        repo: Destination of the push.
        token: The token that was given, if any.
        kept: Text after the cause: where the files are, and how to continue.
    """
    try:
        yield
    except PushError as error:
        raise PushError(f"{error} {kept}") from error.__cause__
    # Uploads wrap errors in RuntimeError, raise ValueError for a refused card, and KeyError if an answer lacks an
    # expected field.
    except (HTTPError, OSError, RuntimeError, ValueError, KeyError) as error:
        raise PushError(f"{_why(error, repo, token)} {kept}") from error


def check_reachable(token: str | None) -> None:
    """Check, before the first request, that the Hub may be used and that there is a token.

    Raises:
        PushError: If offline mode is on, or there is no token.
    """
    if is_offline_mode():
        raise PushError(OFFLINE)
    if token is None and get_token() is None:
        raise PushError(f"There is no token for the Hub: {_LOGIN}.")


def _why(error: BaseException, repo: str, token: str | None) -> str:
    """Explain why a push failed."""
    causes = list(_chain(error))
    if any(isinstance(cause, OfflineModeIsEnabled) for cause in causes):
        return OFFLINE
    if isinstance(error, ValueError) and not isinstance(error, HTTPError):
        # The message explains it already, for example for a card whose header the Hub does not understand.
        return f"The Hub does not take {repo!r}: {_one_line(error)}."
    answered = next((cause for cause in causes if isinstance(cause, HfHubHTTPError)), None)
    if answered is not None:
        return _refused(answered, repo, token)
    unreached = next((cause for cause in causes if isinstance(cause, (HTTPError, ConnectionError))), None)
    if unreached is not None:
        return f"The Hub at {constants.ENDPOINT} cannot be reached, or broke off ({_one_line(unreached)})."
    deepest = f" ({_one_line(causes[-1])})" if len(causes) > 1 else ""
    return f"The upload to {repo!r} failed: {_one_line(error)}{deepest}."


def _refused(error: HfHubHTTPError, repo: str, token: str | None) -> str:
    """Explain what a status code of the Hub means for a push."""
    status = error.response.status_code
    said = f" (the Hub says: {_one_line(error.server_message)})" if error.server_message else ""
    wrong_token = status == 401 and not isinstance(error, RepositoryNotFoundError)
    if wrong_token or (status == 401 and _user(token) is None):
        return f"The Hub does not know the token {_origin(token)}{said}: {_LOGIN}."
    if status in (401, 403):
        user = _user(token)
        whose = f" of {user!r}" if user else ""
        return (
            f"The token {_origin(token)}{whose} may not write to {repo!r}: its name is taken by somebody else, or "
            f"the token may only read{said}. Name a repository of your own, or use a token with write access."
        )
    if isinstance(error, RepositoryNotFoundError):
        return f"There is no repository {repo!r} that this token may see{said}."
    if isinstance(error, BadRequestError):
        return f"The Hub does not take {repo!r}{said or f' ({_one_line(error)})'}."
    return f"The Hub answered {status}{said or f' ({_one_line(error)})'}."


def _origin(token: str | None) -> str:
    """Describe the origin of the token in use, never the token itself."""
    if token is not None:
        return "that was given"
    from_environment = any(os.environ.get(name) for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"))
    return "in HF_TOKEN" if from_environment else "of `hf auth login`"


def _user(token: str | None) -> str | None:
    """The owner of the token; `None` if the Hub does not know it."""
    try:
        return HfApi(endpoint=constants.ENDPOINT, token=token).whoami()["name"]
    except (HTTPError, OSError):
        return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and its causes, outermost first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _one_line(message: object) -> str:
    return " ".join(str(message).split()).rstrip(".")
