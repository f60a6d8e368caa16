"""Takes secrets out of what a node says, before it is written down. Pure.

A bundle is made to be sent to somebody else. What looks like a secret is one: a word too many that is masked costs
a question, one too few a password. Known shapes alone would not do, so whatever is called password, token or key
loses its value, wherever that stands: in URLs, apt's auth files, environments, options, headers, JSON and YAML.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from fleetdrv.secret import MASK, SHORTEST_HIDDEN

_NAMES = (
    r"pass(?:word|wd|phrase|code)?|secret|token|credential|api[-_]?key|access[-_]?key|private[-_]?key|signing[-_]?key"
    r"|auth(?:orization)?|bearer|cookie|signature|sas|pwd|licen[cs]e[-_]?key"
)
_NAMED = rf"[\w.-]*(?:{_NAMES})s?(?:[-_.]\w+)?"
_VALUE = r"""(?:"[^"\n]*"|'[^'\n]*'|[^\s,;"'][^\s,;]*)"""

_PEM = re.compile(r"-----BEGIN [A-Z0-9 ]+-----.*?(?:-----END [A-Z0-9 ]+-----|\Z)", re.DOTALL)
_PEM_TAIL = re.compile(r"(?:^[A-Za-z0-9+/=| \t]+$\n)+^.*-----END [A-Z0-9 ]+-----", re.MULTILINE)

_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s/'\"]+@", re.IGNORECASE), rf"\1{MASK}@"),
    (re.compile(rf"([?&;](?:{_NAMED}|key|sig|code)=)[^&\s'\"]+", re.IGNORECASE), rf"\1{MASK}"),
    (re.compile(r"(\b(?:login|account|password)\s+)\S+", re.IGNORECASE), rf"\1{MASK}"),
    (re.compile(r"((?:proxy-)?authorization\s*[:=]\s*).*", re.IGNORECASE), rf"\1{MASK}"),
    (re.compile(r"(\b(?:basic|bearer)\s+)[A-Za-z0-9+/=._~-]{8,}", re.IGNORECASE), rf"\1{MASK}"),
    (re.compile(rf"(--?{_NAMED}[= ])(?!-)\S+", re.IGNORECASE), rf"\1{MASK}"),
    (re.compile(rf"(\b{_NAMED}[\"']?\s*[=:]\s*){_VALUE}", re.IGNORECASE), rf"\1{MASK}"),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?"), MASK),
    (re.compile(r"\b(?:gh[pousr]_|github_pat_|glpat-|xox[abprs]-|nvapi-|hvs\.|sk-)[A-Za-z0-9_-]{8,}"), MASK),
    (re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"), MASK),
    (re.compile(r"\b[a-z0-9]{6}\.[a-z0-9]{16}\b"), MASK),
    (re.compile(r"\$(?:1|2[aby]|5|6|y|gy)\$[^\s:]{8,}"), MASK),
)
"""URLs with a user; their parameters; netrc; headers; options; assignments; JSON Web Tokens; what vendors mark as
theirs; cloud keys; bootstrap tokens of kubeadm; password hashes."""


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Return the text without what looks like a secret, and without those that are known.

    >>> redact("deb https://me:hunter22@repo.example/apt stable main")
    'deb https://********@repo.example/apt stable main'
    >>> redact("export HTTP_TOKEN=abc; uname")
    'export HTTP_TOKEN=********; uname'
    """
    for secret in sorted({word for word in secrets if len(word) >= SHORTEST_HIDDEN}, key=len, reverse=True):
        text = text.replace(secret, MASK)
    text = _PEM.sub(f"[{MASK}]", text)
    text = _PEM_TAIL.sub(f"[{MASK}]", text)
    for pattern, instead in _RULES:
        text = pattern.sub(instead, text)
    return text


_SECRET_NAME = re.compile(_NAMES, re.IGNORECASE)


def secrets_in(variables: Mapping[str, object]) -> Iterator[str]:
    """Yield the values of an inventory's variables that are called like secrets, however deep they stand."""
    for name, value in variables.items():
        yield from _texts(value, _SECRET_NAME.search(str(name)) is not None)


def _texts(value: object, secret: bool) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _texts(inner, secret or _SECRET_NAME.search(str(name)) is not None)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _texts(inner, secret)
    elif secret and value is not None and not isinstance(value, bool):
        yield str(value)
