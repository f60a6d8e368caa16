"""`fleetdrv diagnose NODE`: what is wrong with one node, ranked, and a bundle of the evidence. Changes nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from fleetdrv import bundle, names, ownership, parse, report
from fleetdrv.effects import Effects
from fleetdrv.entries import found_json
from fleetdrv.errors import ExitCode, FleetdrvError, NodeError, Permanent
from fleetdrv.finding import UNKNOWN, Finding, Found, Retry
from fleetdrv.findings import classify
from fleetdrv.findings_evidence import of_evidence, questions, sections
from fleetdrv.joblogs import host_named, line_to
from fleetdrv.lines import clean, plural
from fleetdrv.look import PROBE_SECONDS, ask
from fleetdrv.model import Host, NodeFacts
from fleetdrv.options import Options
from fleetdrv.reach import open_cluster
from fleetdrv.redact import redact, secrets_in
from fleetdrv.secret import hide

_SECONDS = 180.0


@dataclass(slots=True)
class Gathered:
    """All that could be learnt of a node."""

    told: dict[str, str] = field(default_factory=dict)
    """Section of scripts/evidence.sh to its text."""
    probe: str = ""
    facts: NodeFacts | None = None
    node: dict[str, Any] = field(default_factory=dict)
    """Of its Node object: conditions, versions, our annotations."""
    faults: list[Found] = field(default_factory=list)
    """What could not be asked."""
    now: float = 0.0
    """When the evidence was gathered, seconds since 1970 by this machine."""


def diagnose(options: Options, node: str, output: str) -> ExitCode:
    """Print the findings and where the bundle is. Raises InputError before anything is asked."""
    path, host = bundle.destination(output, node), host_named(options, node)
    gathered = _gather(options, host)
    found = ranked(gathered)
    code = ExitCode.FAILED if found else ExitCode.DONE
    secrets = tuple(secrets_in(host.variables))
    said = {"node": host.name, "findings": [found_json(one) for one in found]}
    document = redact(hide(report.document("diagnose", code, **said, bundle=str(path))), secrets)
    bundle.write(path, {"findings.json": document, **dict(_files(gathered, secrets))})
    text = document if options.json else _text(host.name, found, str(path))
    print(text if options.json else redact(hide(clean(text)), secrets))
    return code


def _gather(options: Options, host: Host) -> Gathered:
    gathered = Gathered()
    with ExitStack() as stack:
        if not options.no_cluster:
            try:
                gathered.node = _node(open_cluster(stack, options, Effects()).node(host.node_name))
            except FleetdrvError as error:
                gathered.faults.append(_fault("cluster-silent", str(error), _CLUSTER_REMEDY, "kubectl"))
        try:
            _ask(options, host, gathered)
        except NodeError as error:
            name = "node-unreadable" if gathered.told else "node-unreachable"
            gathered.faults.append(_fault(name, f"{error.step}: {error.cause}", error.remedy, error.step))
    return gathered


_CLUSTER_REMEDY = "See the cluster: kubectl get nodes; without one: --no-cluster"


def _fault(name: str, cause: str, remedy: str, where: str) -> Found:
    cause, remedy = f"{cause.rstrip('.')}.", remedy or "See whether it runs, at its console: kubectl get node"
    finding = Finding(name=name, cause=cause, remedy=remedy, retry=Retry.LATER)
    return Found(finding=finding, evidence=cause, where=where)


def _ask(options: Options, host: Host, gathered: Gathered) -> None:
    """Two questions over one connection. Raises NodeError with what came before it kept."""
    with line_to(options, host) as line:
        code, out, errors = ask(line, "evidence.sh", (), step="evidence", deadline_seconds=_SECONDS)
        gathered.told, gathered.now = sections(out.decode("utf-8", "replace")), time.time()
        if code != 0 or not out.endswith(b"end\n"):
            said = errors.decode("utf-8", "replace").strip()
            raise Permanent(line.node, "evidence", f"exit {code}: {said[-500:] or 'cut off'}")
        asked = (*questions(gathered.told), "faults")
        code, out, errors = ask(line, "probe.sh", asked, step="probe", deadline_seconds=PROBE_SECONDS)
        gathered.probe = out.decode("utf-8", "replace") + errors.decode("utf-8", "replace")
        try:
            gathered.facts = parse.facts(out.decode("utf-8", "replace"))
        except parse.ProbeError as error:
            cause = f"the probe cannot be read (exit {code}): {error}"
            gathered.faults.append(_fault("node-unreadable", cause, "Read probe.txt in the bundle.", "probe"))


def _node(node: ownership.Object) -> dict[str, Any]:
    status, metadata = node.get("status", {}), node.get("metadata", {})
    annotations, labels = (_our_own(metadata.get(kind) or {}) for kind in ("annotations", "labels"))
    return {
        "name": ownership.name(node),
        "unschedulable": ownership.unschedulable(node),
        "taints": node.get("spec", {}).get("taints") or [],
        "conditions": status.get("conditions") or [],
        "nodeInfo": status.get("nodeInfo") or {},
        "allocatable": status.get("allocatable") or {},
        "annotations": annotations,
        "labels": labels,
    }


def _our_own(notes: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in notes.items() if key.startswith(f"{names.DOMAIN}/")}


def ranked(gathered: Gathered) -> tuple[Found, ...]:
    """Return what is wrong: the hardware, what keeps apt from working, why the last job failed, then the rest."""
    told, kernel = gathered.told, gathered.told.get("kernel-log", "")
    state = [*of_evidence(told, gathered.now), *classify("", kernel=kernel, facts=gathered.facts)]
    every = [*gathered.faults, *_of_jobs(told, kernel, gathered.facts), *state]
    first: dict[str, Found] = {}
    for found in sorted(every, key=lambda found: _tier(found.finding)):
        first.setdefault(found.finding.name, found)
    if len(first) > 1:
        first.pop(UNKNOWN.name, None)
    return tuple(first.values())


def _of_jobs(told: dict[str, str], kernel: str, facts: NodeFacts | None) -> Iterator[Found]:
    """Of the node's last job, if it failed: what its log shows first."""
    jobs = [row.split() for row in told.get("jobs", "").splitlines() if len(row.split()) > 1]
    if jobs and jobs[-1][1:3] != ["done", "0"] and jobs[-1][1] in ("done", "interrupted"):
        log = told.get(f"job-log/{jobs[-1][0]}", "")
        for found in classify(log, kernel=kernel, facts=facts)[:1]:
            yield Found(
                finding=found.finding, evidence=found.evidence, where=f"{found.where} of job {jobs[-1][0]}"
            )


_FIRST = ("node-unreachable", "apt-locked", "dpkg-interrupted", "read-only-filesystem", "disk-full", "boot-full",
          "clock-wrong")  # fmt: skip
_LAST = ("no-autoinstall", "kernel-not-held", "phased-update", "reboot-pending", "cluster-silent", "unknown")
"""Worth telling, and seldom why something does not work now."""


def _tier(finding: Finding) -> tuple[int, int]:
    if finding.quarantine:
        return (0, 0)
    if finding.name in _FIRST:
        return (1, _FIRST.index(finding.name))
    return (3, _LAST.index(finding.name)) if finding.name in _LAST else (2, 0)


def _files(gathered: Gathered, secrets: Iterable[str]) -> Iterator[tuple[str, str]]:
    texts = {f"evidence/{name.strip('/')}.txt": text for name, text in gathered.told.items()}
    texts["node.json"] = json.dumps(gathered.node, indent=2) if gathered.node else ""
    texts["probe.txt"] = gathered.probe
    for name, text in texts.items():
        if text:
            yield name.replace("..", "_"), redact(hide(text), secrets) + "\n"


def _text(node: str, found: tuple[Found, ...], path: str) -> str:
    lines = [f"{node}: {plural(len(found), 'finding') if found else 'nothing found wrong'}"]
    for number, one in enumerate(found, 1):
        finding, shown = one.finding, " / ".join(one.evidence.splitlines()[:3])
        lines += [f"{number}. {finding.name}: {finding.cause}", f"   shown by: {shown} ({one.where})"]
        lines += [f"   remedy: {finding.remedy}"]
        if finding.quarantine:
            lines += ["   the hardware is at fault: nothing is installed on it"]
        elif finding.repair:
            lines += [f"   this can be done for you ({finding.repair}): fleetdrv repair {node}"]
    return "\n".join((*lines, f"evidence, secrets taken out: {path}"))
