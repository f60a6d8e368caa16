"""`fleetdrv trust`: show the keys of hosts that are not known yet, ask, and add them to known_hosts.

Nothing else in fleetdrv trusts a key, and this command never replaces one: a key that changed is an error here,
too. One connection per host, without a log-in: servers since OpenSSH 9.8 punish an address that makes many such.
Jump hosts come first, as the way to the others leads through them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from fleetdrv import inventory, known_hosts_file, passwords, patterns
from fleetdrv.effects import Effects
from fleetdrv.errors import ExitCode, FleetdrvError, InputError, NodeError, Refused, worst
from fleetdrv.known_hosts import Verdict, fingerprint, lookup_name
from fleetdrv.known_hosts_file import Addition
from fleetdrv.options import Options
from fleetdrv.report import document
from fleetdrv.ssh import Dialler
from fleetdrv.ssh_settings import Target

CONNECT_SECONDS = 60.0
AT_ONCE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What one place, under which hosts of the inventory are reached, says of itself."""

    hosts: tuple[str, ...]
    target: Target
    state: str = ""
    """known, new, added, changed, revoked or unreachable."""
    key_type: str = ""
    blob: bytes = b""
    error: NodeError | None = None

    @property
    def name(self) -> str:
        """The name in known_hosts."""
        return lookup_name(self.target.key_name, self.target.key_port)

    @property
    def print(self) -> str:
        """The key's fingerprint."""
        return fingerprint(self.blob) if self.blob else ""


def trust(options: Options) -> ExitCode:
    """Show unknown keys, and add them when the operator says so."""
    everything = tuple(inventory.read(options.inventory).hosts.values())
    hosts = patterns.limit(everything, options.limit) if options.limit else everything
    seen: list[Asked] = []
    with Dialler(Effects(), note=lambda text: print(f"note: {text}", file=sys.stderr)) as dialler:
        for layer in _layers({host.name: dialler.targets(host) for host in hosts}):
            found = _look(dialler, layer)
            fresh = [asked for asked in found if asked.state == "new"]
            if fresh and not options.json:
                print(shown(fresh), flush=True)
            if fresh and _agreed(options, fresh):
                found = [asked for asked in found if asked.state != "new"] + list(_add(dialler, fresh))
            seen += found
    code = worst(ExitCode.DONE, *(_CODES[asked.state] for asked in seen))
    print(document("trust", code, hosts=[_plain(asked) for asked in seen]) if options.json else summary(seen))
    return code


_CODES = {
    "known": ExitCode.DONE,
    "added": ExitCode.DONE,
    "new": ExitCode.CHANGES,
    "changed": ExitCode.FAILED,
    "revoked": ExitCode.FAILED,
    "unreachable": ExitCode.FAILED,
}


def _layers(ways: Mapping[str, Sequence[Target]]) -> list[list[Asked]]:
    """Return places by their number of jumps, each once, with the hosts that need it."""
    layers: list[dict[tuple[str, int], Asked]] = []
    for name, way in ways.items():
        for depth, target in enumerate(way):
            if depth == len(layers):
                layers.append({})
            place = (lookup_name(target.key_name, target.key_port), depth)
            before = layers[depth].get(place)
            layers[depth][place] = Asked(hosts=(*(before.hosts if before else ()), name), target=target)
    return [list(layer.values()) for layer in layers]


def _look(dialler: Dialler, layer: Sequence[Asked]) -> list[Asked]:
    def look(asked: Asked) -> Asked:
        try:
            shown, refusal = dialler.host_key(asked.target, asked.hosts[0], CONNECT_SECONDS)
        except NodeError as error:
            return replace(asked, state="unreachable", error=error)
        key = replace(asked, key_type=shown.key_type, blob=shown.blob)
        if shown.known:
            return replace(key, state="known")
        state = {Verdict.UNKNOWN: "new", Verdict.CHANGED: "changed"}.get(shown.finding.verdict, "revoked")
        return replace(key, state=state, error=None if state == "new" else refusal)

    with ThreadPoolExecutor(min(AT_ONCE, len(layer)), thread_name_prefix="trust") as workers:
        return list(workers.map(look, layer))


def shown(fresh: Sequence[Asked]) -> str:
    """Return unknown keys with the hosts that showed them; hosts that share one are warned of."""
    keys: dict[tuple[str, str], list[str]] = {}
    for asked in fresh:
        keys.setdefault((asked.print, asked.key_type), []).append(asked.name)
    lines = [f"{len(keys)} host key{'s' * (len(keys) > 1)} not known yet:"]
    for (print_, key_type), names in sorted(keys.items(), key=lambda item: item[1]):
        lines.append(f"  {print_} {key_type}  {', '.join(names)}")
        if len(names) > 1:
            lines.append(f"    the same key on {len(names)} hosts: whoever owns one of them can pass for all")
    lines.append("Compare with `ssh-keygen -lf /etc/ssh/ssh_host_*_key.pub` on the hosts' own consoles.")
    return "\n".join(lines)


def _agreed(options: Options, fresh: Sequence[Asked]) -> bool:
    if options.yes:
        return True
    if options.json or not passwords.on_terminal():
        return False
    print(f"Trust what {len(fresh)} host(s) showed? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Refused("not confirmed; no key was added")
    return True


def _add(dialler: Dialler, fresh: Iterable[Asked]) -> Iterable[Asked]:
    """Write by file; a key that another one came for meanwhile is an error again."""
    files: dict[Path, dict[Addition, Asked]] = {}
    for asked in fresh:
        target, path = asked.target, dialler.known_hosts_file(asked.target)
        if path is None:
            raise InputError(f"{asked.name}: UserKnownHostsFile is none: there is no file to add its key to")
        new = Addition(
            host=target.key_name,
            port=target.key_port,
            name=asked.name,
            blob=asked.blob,
            hashed=target.hash_known_hosts,
        )
        files.setdefault(path, {})[new] = asked
    for path, additions in files.items():
        try:
            refused = known_hosts_file.append(path, list(additions))
        except OSError as error:
            raise FleetdrvError(f"{path}: cannot be written: {error.strerror or error}") from None
        for new, asked in additions.items():
            if new in refused:
                places = ", ".join(f"{e.place}: {fingerprint(e.blob)}" for e in refused[new].entries)
                cause = f"another key was added meanwhile: {places}; not {asked.print}"
                error_ = NodeError(asked.hosts[0], "trust", cause, remedy="the same command again")
                yield replace(asked, state="changed", error=error_)
            else:
                yield replace(asked, state="added")
    dialler.read_known_hosts_again()


def summary(seen: Sequence[Asked]) -> str:
    """Return what came of it: failures last, each with evidence and the next command."""
    counts = [f"{sum(a.state == state for a in seen)} {state}" for state in _CODES]
    lines = [", ".join(count for count in counts if not count.startswith("0 ")) or "no hosts"]
    if any(asked.state == "new" for asked in seen):
        lines.append("nothing was added; to add them: the same command with --yes")
    for asked in seen:
        if asked.error is not None:
            lines += ["", str(asked.error), *(f"  | {line}" for line in asked.error.evidence.splitlines())]
            lines += [f"  next: {asked.error.remedy}"] if asked.error.remedy else []
    return "\n".join(lines)


def _plain(asked: Asked) -> dict[str, object]:
    said = asked.error
    return {
        "name": asked.name,
        "hosts": list(asked.hosts),
        "state": asked.state,
        "key_type": asked.key_type,
        "fingerprint": asked.print,
        "error": str(said) if said else "",
        "evidence": said.evidence if said else "",
        "next": said.remedy if said else "",
    }
