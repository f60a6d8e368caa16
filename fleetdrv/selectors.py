"""Label selectors, read as the API reads them (k8s.io/apimachinery pkg/labels). Pure.

The drain decides about each pod from one list, so it needs the answer here and not one request per selector.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_KEY = r"(?:[A-Za-z0-9][A-Za-z0-9.-]{0,252}/)?[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
_VALUE = r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?"
_TERM = re.compile(
    rf"\s*(?:(?P<absent>!\s*{_KEY})"
    rf"|(?P<key>{_KEY})\s*(?:(?P<sign>==|=|!=)\s*(?P<value>{_VALUE})"
    rf"|\s(?P<set>in|notin)\s*\((?P<values>\s*{_VALUE}\s*(?:,\s*{_VALUE}\s*)*)\))?)\s*(?:,|$)"
)


def checked(text: str) -> str:
    """Return the selector as it is; raises ValueError where the API would refuse it, or it is empty."""
    place = 0
    while place < len(text):
        term = _TERM.match(text, place)
        if term is None:
            break
        place = term.end()
    if not text.strip() or place < len(text) or text.rstrip().endswith(","):
        raise ValueError(
            f"{text!r} is no label selector; write app=batch, app!=batch, app in (a,b), app notin (a), app, !app"
        )
    return text


def fits(selector: str, labels: Mapping[str, str]) -> bool:
    """Tell whether labels match a selector that `checked` let pass; every term must.

    As in the API, `!=` and `notin` match also where the label is absent.

    >>> fits("app in (a, b),!old", {"app": "b"}), fits("app!=a", {}), fits("app", {})
    (True, True, False)
    """
    return all(_fits(term, labels) for term in _TERM.finditer(selector) if term[0].strip())


def _fits(term: re.Match[str], labels: Mapping[str, str]) -> bool:
    if term["absent"]:
        return term["absent"].lstrip("! ") not in labels
    key = term["key"]
    if term["set"]:
        within = labels.get(key) in {value.strip() for value in term["values"].split(",")}
        return within == (term["set"] == "in")
    if term["sign"]:
        return (labels.get(key) == term["value"]) == (term["sign"] != "!=")
    return key in labels
