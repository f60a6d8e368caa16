"""Where a driver comes from: the parts of the playbook's schema that name an archive or packages.

Patterns here are the border: a value that passed them may be written into a file or, quoted, into a script.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

LocalPath = Annotated[str, StringConstraints(pattern=r"^[ -~]{1,1024}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
DkmsName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}$")]
Version = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+~:-]{0,63}$")]
PackageName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.+-]{1,63}$")]
VersionPattern = Annotated[str, StringConstraints(pattern=r"^[0-9*][A-Za-z0-9_.+~:*-]{0,63}$")]
"""An exact version, or one with `*` for any text."""
Uri = Annotated[str, StringConstraints(pattern=r"^(https?|file):/[A-Za-z0-9._~:/?&=%@+,-]{1,500}$")]
Suite = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,63}$")]
Component = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,63}$")]
Fingerprint = Annotated[str, StringConstraints(pattern=r"^[0-9A-F]{40}$")]


Inner = tuple[str | int, ...]
"""Keys and indices that lead from a model to a value in it."""


class Contradiction(ValueError):
    """Values that are right by themselves and do not go together: where, below the model that says so, and why.

    A validator raises it with all that it found, so that the operator sees each at its own line.
    """

    def __init__(self, found: Iterable[tuple[Inner, str]]) -> None:
        self.found = tuple(found)
        super().__init__("; ".join(text for _, text in self.found))

    @classmethod
    def demand_none(cls, found: Iterable[tuple[Inner, str]]) -> None:
        """Raise it unless nothing was found."""
        if contradiction := tuple(found):
            raise cls(contradiction)


def closed(schema: dict[str, Any]) -> None:
    """Say in the JSON Schema what `load` does: a mapping whose keys have a pattern has no other keys."""
    open_ends = [schema]
    while open_ends:
        one = open_ends.pop()
        if "patternProperties" in one:
            one["additionalProperties"] = False
        open_ends += [*one.get("properties", {}).values(), *one.get("patternProperties", {}).values()]


class Model(BaseModel):
    """Frozen, strict, and without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, json_schema_extra=closed)


class DkmsSource(Model):
    """A DKMS source archive: a tar whose one top folder holds dkms.conf."""

    source: LocalPath
    """Path of the archive; relative to the playbook."""
    sha256: Sha256
    package: DkmsName = ""
    version: Version = ""
    """DKMS's own name and version of it; read from the archive's dkms.conf where left out."""


class Repository(Model):
    """An apt repository that the node's own sources do not name. Its key is pinned."""

    uri: Uri
    suites: Annotated[tuple[Suite, ...], Field(min_length=1, max_length=8, strict=False)]
    components: Annotated[tuple[Component, ...], Field(max_length=8, strict=False)] = ()
    """None only for a flat repository, whose suite ends in a slash."""
    key: LocalPath
    """Path of the repository's key, armoured or not; relative to the playbook."""
    fingerprint: Fingerprint
    """Of the key, 40 capital hex digits: no other key is used."""
    check_valid_until: bool = True

    def text(self) -> str:
        """Return it as apt's .sources file without Signed-By, which is for the node to say (sources.list(5))."""
        lines = ["Types: deb", f"URIs: {self.uri}", f"Suites: {' '.join(self.suites)}"]
        lines += [f"Components: {' '.join(self.components)}"] if self.components else []
        lines += [] if self.check_valid_until else ["Check-Valid-Until: no"]
        return "\n".join(lines) + "\n"

    @model_validator(mode="after")
    def _flat_or_with_components(self) -> Repository:
        Contradiction.demand_none(self._contradictions())
        return self

    def _contradictions(self) -> Iterator[tuple[Inner, str]]:
        flat = [suite for suite in self.suites if suite.endswith("/")]
        if self.components and flat:
            at: Inner = ("suites", self.suites.index(flat[0]))
            yield at, f"suite {flat[0]} ends in a slash, so it has no components"
        if not self.components and len(flat) != len(self.suites):
            yield ("components",), "components are missing; only a suite that ends in a slash has none"


class AptSource(Model):
    """Debian packages, by exact version or pattern."""

    packages: Annotated[dict[PackageName, VersionPattern], Field(min_length=1, max_length=32)]
    sha256: dict[PackageName, Sha256] = {}
    """Of the packages at exact versions. Left out, it is taken from the signed lists of the repository, once per
    run, release and architecture."""
    repository: Repository | None = None
    hold: bool = True
    """Mark the packages as held, so that no other upgrade of the node takes them along."""
    conffiles: Literal["keep", "replace"] = "keep"
    """What becomes of configuration files of these packages that were changed by hand."""

    @model_validator(mode="after")
    def _digests_of_own_exact_packages(self) -> AptSource:
        loose = sorted(p for p in self.sha256 if "*" in self.packages.get(p, "*"))
        text = "packages does not name it with an exact version"
        Contradiction.demand_none((("sha256", name), f"sha256 of {name}: {text}") for name in loose)
        return self
