"""`fleetdrv lab`: words for people around lab.py, and what to type next."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import platformdirs

from fleetdrv.errors import ExitCode, InputError
from fleetdrv.lab import images, lab


def main(action: str, *, nodes: int, release: str, folder: str, context: str, as_json: bool) -> ExitCode:
    """Carry out one action on the practice fleet. Exit code 2: `status` finds it incomplete."""
    place = Path(folder) if folder else Path(platformdirs.user_state_dir("fleetdrv")) / "lab"
    if action == "up":
        lab.up(place, releases(nodes, release), context or None, _say)
        print(_next(place))
        return ExitCode.DONE
    if action == "down":
        lab.down(place, _say)
        return ExitCode.DONE
    return _status(place, as_json)


def releases(nodes: int, release: str) -> list[str]:
    """Return each node's release: one name for all, or one for each.

    >>> releases(3, "bookworm"), releases(2, "bookworm,trixie")
    (['bookworm', 'bookworm', 'bookworm'], ['bookworm', 'trixie'])
    """
    if nodes < 1:
        raise InputError(f"--nodes {nodes}: a practice fleet has at least one")
    named = release.split(",")
    strangers = sorted(set(named) - set(images.RELEASES))
    if strangers:
        raise InputError(f"--release {', '.join(strangers)}: the lab knows {', '.join(images.RELEASES)}")
    if len(named) not in (1, nodes):
        raise InputError(f"--release names {len(named)} releases for {nodes} nodes; name one, or one for each")
    return named * nodes if len(named) == 1 else named


def _status(place: Path, as_json: bool) -> ExitCode:
    found = lab.status(place)
    nodes = found["nodes"]
    assert isinstance(nodes, list)
    complete = bool(nodes) and all(node["running"] and node["ready"] for node in nodes)
    if as_json:
        print(json.dumps({"schema": "fleetdrv/1", "command": "lab status", **found}, indent=2))
    else:
        print(f"folder: {found['folder']}")
        plane = f"context {found['context']}" if found["context"] else _running(bool(found["control_plane"]))
        print(f"control plane: {plane}")
        for node in nodes:
            ready = {True: "Ready", False: "NotReady", None: "unknown to the cluster"}[node["ready"]]
            where = f"ssh port {node['ssh_port']}"
            print(f"{node['name']}: {node['release']}, {_running(node['running'])}, {ready}, {where}")
        if not nodes:
            print("no nodes; bring some up: fleetdrv lab up")
    return ExitCode.DONE if complete else ExitCode.CHANGES


def _running(it_is: bool) -> str:
    return "running" if it_is else "not running"


def _next(place: Path) -> str:
    return (
        f"\nexport KUBECONFIG={place / 'kubeconfig'}\n"
        f"fleetdrv apply playbooks/toy-1.0.yaml -i {place / 'inventory.yaml'}\n"
        f"fleetdrv lab down{'' if place.name == 'lab' else f' --folder {place}'}"
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
