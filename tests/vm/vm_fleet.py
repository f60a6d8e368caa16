"""The operator's side of a practice fleet."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from fleetdrv.lab import lab
from tests.rollout.sim_fleet import FLEETDRV, PLAYBOOKS, Ended
from tests.sim.node import build_id

PAIR = ("bookworm", "bookworm")
CODE = "cat /sys/class/misc/fleetdrv_toy/code"


class VmFleet:
    """Brings the lab up in a folder of its own (a short path: it holds unix sockets), or uses one that is up."""

    def __init__(self, kept: Path | None, scratch: Path, releases: Sequence[str] = PAIR) -> None:
        self._own = None if kept else Path(tempfile.mkdtemp(prefix="fdlab"))
        self.folder, self.scratch, self.releases = kept or self._own or scratch, scratch, tuple(releases)
        self.cache: Path | None = None
        """Where finished builds are kept; None: where they are for everybody here."""
        self.names = tuple(f"node-{number}" for number in range(1, len(releases) + 1))
        if self._own:
            try:
                lab.up(self._own, releases, None, _say)
            except BaseException:
                self.close()
                raise
        self.kubeconfig, self.inventory = self.folder / "kubeconfig", self.folder / "inventory.yaml"

    def close(self) -> None:
        """Leave nothing running of what was brought up here."""
        if self._own:
            lab.down(self._own, _say)
            shutil.rmtree(self._own, ignore_errors=True)

    def ssh(self, node: str, command: str) -> str:
        """Run a command on a node with OpenSSH; it has to succeed."""
        done = lab.ssh(self.folder, node, command, timeout_seconds=900)
        assert done.returncode == 0, (node, command, done)
        return done.stdout

    def await_boot(self, node: str) -> None:
        """Return when the Node object is of the boot that the machine is in."""
        boot = self.ssh(node, "cat /proc/sys/kernel/random/boot_id").strip()
        eventually(lambda: self.node(node)["status"]["nodeInfo"]["bootID"] == boot, f"{node}'s kubelet", 1200)

    def put(self, node: str, path: str, content: bytes) -> None:
        """Write a small file on a node."""
        self.ssh(node, f"echo {base64.b64encode(content).decode()} | base64 -d >{path}")

    def kubectl(self, *arguments: str) -> str:
        """Run kubectl as the administrator."""
        argv = [str(Path(sys.executable).parent / "kubectl"), f"--kubeconfig={self.kubeconfig}", *arguments]
        return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout

    def node(self, name: str) -> dict[str, Any]:
        """Read a Node object."""
        return dict(json.loads(self.kubectl("get", "node", name, "-o", "json", "--show-managed-fields")))

    def pods(self, node: str, app: str) -> list[dict[str, Any]]:
        """List the shop's pods of one kind on a node, without those on their way out."""
        chosen = ("--selector", f"app={app}", f"--field-selector=spec.nodeName={node}", "--output=json")
        found = json.loads(self.kubectl("get", "pods", "--namespace=shop", *chosen))["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def playbook(self, version: str, drain: Mapping[str, Any] | None = None, greeting: str = "",
                 **changes: Any) -> Path:
        """Write a playbook of the practice driver; `changes` go into its rollout."""
        book = yaml.safe_load((PLAYBOOKS / f"toy-{version}.yaml").read_text())
        book["drivers"][0]["dkms"]["source"] = str(PLAYBOOKS / "archives" / f"toy-{version}.tar")
        book["rollout"].update(changes)
        book.setdefault("drain", {}).update(drain or {})
        if greeting:
            book["drivers"][0]["parameters"]["fleetdrv_toy"]["greeting"] = greeting
        return self.write_playbook(f"toy-{version}", book)

    def write_playbook(self, name: str, book: Mapping[str, Any]) -> Path:
        """Write any playbook."""
        path = self.scratch / f"{name}.yaml"
        path.write_text(yaml.safe_dump(dict(book), sort_keys=False))
        return path

    def start(self, *arguments: str, kubeconfig: Path | None = None) -> subprocess.Popen[bytes]:
        """Start fleetdrv."""
        environment = {**os.environ, "KUBECONFIG": str(kubeconfig or self.kubeconfig)}
        environment["XDG_STATE_HOME"] = str(self.scratch)
        if self.cache is not None:
            environment["XDG_CACHE_HOME"] = str(self.cache)
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        return subprocess.Popen([FLEETDRV, *arguments], env=environment, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def fleetdrv(self, *arguments: str, code: int | None = None) -> Ended:
        """Run fleetdrv to its end; with `code` it has to end so."""
        with self.start(*arguments) as process:
            out, errors = process.communicate(timeout=1800)
        ended = Ended(process.returncode, out.decode(), errors.decode())
        assert code is None or ended.code == code, ended
        return ended

    def apply(self, version: str, *options: str, code: int | None = 0, inventory: Path | None = None,
              **changes: Any) -> Ended:
        """Apply a version of the practice driver."""
        return self.apply_book(self.playbook(version, **changes), *options, code=code, inventory=inventory)

    def apply_book(self, book: Path, *options: str, code: int | None = 0, inventory: Path | None = None) -> Ended:
        """Apply a playbook."""
        where = str(inventory or self.inventory)
        return self.fleetdrv("apply", str(book), "-i", where, "--yes", *options, code=code)

    def plan(self, version: str, *options: str, code: int | None = None) -> Ended:
        """Plan a version of the practice driver."""
        return self.fleetdrv("plan", str(self.playbook(version)), "-i", str(self.inventory), *options, code=code)

    def loaded(self, node: str, module: str = "fleetdrv_toy") -> str:
        """Return the build id of the code that runs."""
        note = f"/sys/module/{module}/notes/.note.gnu.build-id"
        return self.ssh(node, f"od -An -v -tx1 -j16 {note} | tr -d ' \\n'").strip()

    def on_disk(self, node: str, module: str = "fleetdrv_toy") -> str:
        """Return the build id in the file that modprobe would load, read here, without the node's scripts."""
        opened = f"f=$(modinfo -n {module}); case $f in *.xz) xz -dc $f;; *) cat $f;; esac | base64 -w0"
        path = self.scratch / f"{node}.ko"
        path.write_bytes(base64.b64decode(self.ssh(node, opened)))
        return build_id(path)

    def audit(self) -> list[dict[str, Any]]:
        """Return the API server's own record of every write that the administrator made."""
        lines = (self.folder / "control-plane" / "audit.log").read_text().splitlines()
        return [entry for entry in map(json.loads, lines) if entry.get("user", {}).get("username") == "admin"]

    def sessions(self, node: str, since: str) -> tuple[int, int]:
        """Count log-ins and commands that the node's sshd logged, this question's own left out."""
        text = self.ssh(node, f"journalctl -q --no-pager -t sshd -t sshd-session --since '{since}'")
        return text.count("Accepted publickey") - 1, text.count("Starting session: command") - 1

    @property
    def run(self) -> str:
        """Id of the last run that has a journal."""
        journals = (self.scratch / "fleetdrv" / "runs").glob("*.jsonl")
        return max(journals, key=lambda path: path.stat().st_mtime).stem

    def journal(self, phase: str = "job") -> list[str]:
        """Return what the last run's journal says of any node in a phase."""
        text = (self.scratch / "fleetdrv" / "runs" / f"{self.run}.jsonl").read_text()
        lines = text.rpartition("\n")[0].splitlines()  # the last one may be on its way to the disk
        return [entry["text"] for entry in map(json.loads, lines) if entry["node"] and entry["phase"] == phase]

    def clock(self, node: str) -> str:
        """Return the node's time as journalctl reads it; the second in which this is asked is left out."""
        now = self.ssh(node, "date -d '+1 sec' '+%F %T'").strip()
        time.sleep(2)
        return now

    def end_state(self, node: str) -> dict[str, Any]:
        """Return what two rollouts that ended alike have in common."""
        body = self.node(node)
        metadata = body["metadata"]
        notes = {k for k in metadata.get("annotations", {}) if k.startswith("fleetdrv.io/")}
        files = "find /etc/modprobe.d /etc/modules-load.d /etc/dkms -type f -exec sha256sum {} + | sort"
        return {
            "spec": {key: body["spec"].get(key) for key in ("unschedulable", "taints")},
            "labels": metadata.get("labels", {}),
            "annotations": sorted(notes),
            "dkms": self.ssh(node, "dkms status").strip(),
            "same": self.loaded(node) == self.on_disk(node),
            "code": self.ssh(node, CODE).strip(),
            "files": self.ssh(node, files),
            "running": self.ssh(node, "cd /var/lib/fleetdrv/jobs; for j in *; do [ -e $j/rc ] || echo $j; done"),
        }


def eventually(true: Callable[[], bool], what: str, seconds: float = 600) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.5)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
