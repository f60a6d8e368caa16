"""HTTP over kubectl proxy's unix socket: the one border where codes and lost links become our errors.

Knows paths and verbs, no objects. A GET may be repeated and is, a little; a write goes out exactly once,
and a write without an answer is the caller's to look into: read again, decide again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fleetdrv.errors import ClusterAway, ClusterError, Conflict, Forbidden, NotFound
from fleetdrv.unix_http import Failure, Response, UnixHttp

_CONNECTIONS = 32
_SECONDS = 30.0
"""Of each read and write; the API server itself gives up after 60."""

_GET_PAUSES = (0.2, 1.0, 3.0)
"""Seconds before the second, third and fourth try of a GET."""

_LONGEST_PAUSE_SECONDS = 10.0

_SILENCE_SECONDS = 20.0
"""Who was silent for longer is not asked a second time: a read of a frozen API ends with its first timeout."""


class Expired(ClusterError):
    """The place in a list that a page began at is forgotten (410): list from the start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the API said: HTTP code and object, or Status."""

    code: int
    body: Mapping[str, Any] = field(default_factory=dict)
    retry_after_seconds: float = 0.0

    @property
    def message(self) -> str:
        """The Status message."""
        return str(self.body.get("message", ""))


class Api:
    """Pooled connections to one unix socket. Any thread may send."""

    def __init__(self, socket: Path, gone: Callable[[], str] = str) -> None:
        """`gone` says why the other end has ended, or "" while it runs."""
        self._http = UnixHttp(socket, most=_CONNECTIONS, seconds=_SECONDS)
        self._gone = gone

    def close(self) -> None:
        """Close the connections; a request in another thread ends with ClusterAway."""
        self._http.close()

    def get(self, path: str, params: Mapping[str, str] | None = None) -> Mapping[str, Any]:
        """GET an object. Tried four times where no usable answer came; raises ClusterError's children."""
        began = time.monotonic()
        for pause in _GET_PAUSES:
            try:
                answer = self.send("GET", path, params=params)
            except ClusterAway:
                if time.monotonic() - began > _SILENCE_SECONDS:
                    raise
                time.sleep(pause)
                continue
            if not _passing(answer.code):
                return _checked("GET", path, answer)
            time.sleep(max(pause, min(answer.retry_after_seconds, _LONGEST_PAUSE_SECONDS)))
        return _checked("GET", path, self.send("GET", path, params=params))

    def send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> Answer:
        """Send one request, once. Any HTTP answer is returned; none at all raises ClusterAway.

        After ClusterAway the fate of a write is unknown.
        """
        gone = self._gone()
        if gone:
            raise ClusterAway(f"{method} {path}: not sent: {gone}")
        content = None if body is None else json.dumps(body).encode()
        headers = {"Accept": "application/json"} | ({} if content is None else {"Content-Type": content_type})
        target = f"{path}?{urlencode(params)}" if params else path
        try:
            response = self._http.request(method, target, content, headers)
        except Failure as error:
            raise ClusterAway(f"{method} {path}: {self._gone() or error or type(error).__name__}") from error
        answer = _read(response)
        if answer.code == 500 and "getting credentials" in answer.message:  # an exec plugin, says kubectl
            raise Forbidden(f"{method} {path}: kubectl could not get credentials: {answer.message}")
        return answer


def refusal(method: str, path: str, answer: Answer) -> ClusterError:
    """Translate an HTTP answer of 400 or more."""
    said = f"{method} {path}: {answer.message or 'no reason given'} (HTTP {answer.code})"
    if answer.code in (401, 403):
        return Forbidden(
            f"{said}; have the credentials expired, or may this user not do it? try: kubectl auth whoami"
        )
    if _passing(answer.code):
        return ClusterAway(said)
    return {404: NotFound, 409: Conflict, 410: Expired}.get(answer.code, ClusterError)(said)


def _checked(method: str, path: str, answer: Answer) -> Mapping[str, Any]:
    if answer.code >= 400:
        raise refusal(method, path, answer)
    return answer.body


def _passing(code: int) -> bool:
    """Tell whether the same request may fare better later."""
    return code in (408, 429) or code >= 500


def _read(response: Response) -> Answer:
    try:
        body = json.loads(response.content)
    except ValueError:  # kubectl's own refusals are plain text
        body = {"message": response.content.decode("utf-8", "replace").strip()}
    after = response.headers.get("Retry-After", "")
    return Answer(
        code=response.code,
        body=body if isinstance(body, dict) else {"message": str(body)},
        retry_after_seconds=float(after) if after.isdigit() else 0.0,
    )
