"""The few REST calls to a search server that Elasticsearch (7 to 9) and OpenSearch (1 to 3) have in common.

Plain HTTP with `requests` is used, because neither project's client works with both servers: the client of
Elasticsearch refuses other servers and requests a media type of its own major version; the client of OpenSearch is
not made for Elasticsearch 8. Credentials come from the environment, so that no file and no card can contain them.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any
from urllib.parse import urlsplit

from hf_distill._optional import require

FLAG = "--elasticsearch_url"
_RETRIES = 5
# Seconds to wait before rows that a busy server refused are sent again.
_WAITS = (0.1, 0.5, 2, 10, 30)
# Seconds to connect, seconds to wait for an answer.
_TIMEOUT = (10, 300)
_BUSY = 429


class SearchServer:
    """One index on a search server.

    Args:
        url: Address without credentials, which are read from `ELASTICSEARCH_API_KEY`, or from `ELASTICSEARCH_USER` and
            `ELASTICSEARCH_PASSWORD`. Your own certificate authority is named by `REQUESTS_CA_BUNDLE`.
        index: Name of the index.

    Raises:
        ValueError: If the address is invalid, or contains a password.
        ImportError: If `requests` is not installed.
    """

    def __init__(self, url: str, index: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"`{FLAG}` is {url!r}; it must look like https://host:9200.")
        if parts.username is not None:
            raise ValueError(
                f"`{FLAG}` holds a user name or password, which would end in files; set ELASTICSEARCH_USER and "
                "ELASTICSEARCH_PASSWORD, or ELASTICSEARCH_API_KEY, in the environment instead."
            )
        self.url, self.index = url.rstrip("/"), index
        self._opened: tuple[int, Any] | None = None
        check()

    def describe(self) -> dict[str, Any] | None:
        """Return the notes in the index (`_meta` of its mapping), or None if the index does not exist."""
        found = self._call("GET", f"{self.index}/_mapping", missing_is_none=True)
        if found is None:
            return None
        (mapping,) = found.values()
        return dict(mapping["mappings"].get("_meta", {}))

    def create(self, settings: dict[str, Any], mapping: dict[str, Any]) -> None:
        """Create the index."""
        self._call("PUT", self.index, {"settings": settings, "mappings": mapping})

    def note(self, notes: dict[str, Any]) -> None:
        """Write notes into the index."""
        self._call("PUT", f"{self.index}/_mapping", {"_meta": notes})

    def delete(self) -> None:
        """Delete the index."""
        self._call("DELETE", self.index)

    def count(self) -> int:
        """Count the documents in the index, including those just added."""
        self._call("POST", f"{self.index}/_refresh")
        return int(self._call("GET", f"{self.index}/_count")["count"])

    def add(self, documents: dict[int, dict[str, Any]]) -> None:
        """Add documents by id; an existing document is replaced.

        Raises:
            RuntimeError: If the server refuses a document.
        """
        for wait in _WAITS:
            pairs = (({"index": {"_id": str(number)}}, document) for number, document in documents.items())
            answer = self._call_lines(f"{self.index}/_bulk", chain.from_iterable(pairs))
            items = [item["index"] for item in answer["items"]]
            refused = [item for item in items if item["status"] >= 300]
            wrong = [item for item in refused if item["status"] != _BUSY]
            if wrong:
                raise RuntimeError(f"The search server {self.url!r} ({FLAG}) refused a row: {wrong[0]}")
            if not refused:
                return
            documents = {int(item["_id"]): documents[int(item["_id"])] for item in refused}
            time.sleep(wait)
        raise RuntimeError(f"The search server {self.url!r} ({FLAG}) is too busy: it refused {len(documents)} rows.")

    def search(self, bodies: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
        """Return the hits of several searches, scored with the statistics of the whole index, not of one shard.

        Raises:
            RuntimeError: If a search fails, or only a part of the index answers.
        """
        header = {"index": self.index, "search_type": "dfs_query_then_fetch"}
        lines = chain.from_iterable((header, body) for body in bodies)
        answers = self._call_lines("_msearch", lines)["responses"]
        for answer in answers:
            if "error" in answer or answer.get("timed_out") or answer["_shards"]["failed"]:
                raise RuntimeError(f"The search server {self.url!r} ({FLAG}) failed: {json.dumps(answer)[:500]}")
        return [answer["hits"]["hits"] for answer in answers]

    def _call_lines(self, path: str, lines: Iterable[dict[str, Any]]) -> Any:
        return self._call("POST", path, "".join(json.dumps(line) + "\n" for line in lines))

    def _call(
        self, method: str, path: str, body: dict[str, Any] | str | None = None, *, missing_is_none: bool = False
    ) -> Any:
        lines = isinstance(body, str)
        data = None if body is None else (body if lines else json.dumps(body)).encode()  # type: ignore[union-attr]
        kind = {"Content-Type": "application/x-ndjson" if lines else "application/json"} if data else {}
        try:
            answer = self._session.request(method, f"{self.url}/{path}", data=data, headers=kind, timeout=_TIMEOUT)
        except OSError as error:  # every exception of requests is one
            raise ConnectionError(f"The search server {self.url!r} ({FLAG}) does not answer: {error}") from error
        if missing_is_none and answer.status_code == 404:
            return None
        if not answer.ok:
            raise RuntimeError(
                f"The search server {self.url!r} ({FLAG}) answered {answer.status_code} to {method} {path}: "
                f"{answer.text[:500]}"
            )
        return answer.json()

    @property
    def _session(self) -> Any:
        """Return a session with open connections; a forked process must not use those of its parent."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), _open_session()
        return self._opened[1]


def _open_session() -> Any:
    """Return a session that retries while the server is busy or restarts."""
    requests, urllib3 = check(), require("urllib3", extra="elasticsearch", needed_by="`--engine elasticsearch`")
    policy = urllib3.Retry(
        _RETRIES,
        backoff_factor=0.2,
        status_forcelist=(_BUSY, 502, 503, 504),
        allowed_methods=None,
        raise_on_status=False,
    )
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, requests.adapters.HTTPAdapter(max_retries=policy))
    key, user = os.environ.get("ELASTICSEARCH_API_KEY"), os.environ.get("ELASTICSEARCH_USER")
    if key:
        session.headers["Authorization"] = f"ApiKey {key}"
    elif user:
        session.auth = (user, os.environ.get("ELASTICSEARCH_PASSWORD", ""))
    return session


def check() -> Any:
    """Import and return `requests`.

    Raises:
        ImportError: If it is not installed.
    """
    return require("requests", extra="elasticsearch", needed_by="`--engine elasticsearch`")
