"""Marker secrets go through whole rollouts; then every place where one could have been left is searched.

Secrets are named in MARKERS with the way they reach fleetdrv. The token is that of the printed CronJob's own
account, so the rollouts here also show that its rights are enough.
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tests.fixtures_cluster import KUBECTL, eventually
from tests.rollout.sim_fleet import FLEETDRV, REPOSITORY, Ended, SimFleet

PASSWORD = "marker-pa55word-4711-%s"
"""In the inventory as `ansible_become_password`."""
SUDO = "marker-sud0-0815-$HOME"
"""What sudo asks for on the nodes, in the file that `--sudo-password-file` names."""


@contextmanager
def watched(markers: dict[str, str]) -> Iterator[list[str]]:
    """Read every process's arguments 100 times a second; yields whom a secret was seen in."""
    caught: list[str] = []
    stop = threading.Event()
    seen: set[str] = set()

    def watch() -> None:
        due = time.monotonic()
        while not stop.wait(max(0.0, due - time.monotonic())):
            due = max(due, time.monotonic() - 0.1) + 0.01
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    said = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
                except OSError:
                    continue
                seen.add(said[:80])
                caught.extend(f"{name} in: {said[:80]}" for name, marker in markers.items() if marker in said)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield caught
    finally:
        stop.set()
        watcher.join()
    assert any("kubectl" in said for said in seen), "the watch saw the program's own children"


def files_with(marker: str, *folders: Path) -> list[str]:
    """Return the files below folders in which a secret stands, also in base64."""
    found = []
    for shape in (marker, base64.b64encode(marker.encode()).decode().rstrip("=")):
        argv = ["grep", "--recursive", "--files-with-matches", "--fixed-strings", "--text", "--", shape]
        done = subprocess.run([*argv, *map(str, folders)], capture_output=True, text=True)
        assert done.returncode in (0, 1, 2), done.stderr  # 2: something went away meanwhile
        found += done.stdout.splitlines()
    return sorted(set(found))


@pytest.fixture
def token(fleet: SimFleet, control_plane: Path, tmp_path: Path) -> str:
    """Apply the printed CronJob's account and let fleetdrv be it, straight to the API; return its token."""
    book = REPOSITORY / "playbooks" / "toy-1.0.yaml"  # its archive lies beside it
    argv = [FLEETDRV, "schedule", str(book), "-i", str(fleet.inventory), "--print", "cronjob", "--image", "i:1"]
    printed = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout
    objects = [obj for obj in yaml.safe_load_all(printed) if obj["kind"] != "CronJob"]
    admin = [KUBECTL, f"--kubeconfig={control_plane}"]
    subprocess.run([*admin, "apply", "-f", "-"], input=yaml.safe_dump_all(objects), text=True, check=True,
                   capture_output=True, timeout=60)
    secrets = "/api/v1/namespaces/fleetdrv/secrets"

    def tokens() -> list[str]:
        of_account = "kubernetes.io/service-account.name"
        notes = [(s["metadata"].get("annotations", {}), s.get("data")) for s in fleet.admin.get(secrets)["items"]]
        held = [data for said, data in notes if said.get(of_account) == "fleetdrv" and data]
        return [base64.b64decode(data["token"]).decode() for data in held]

    eventually(lambda: bool(tokens()), "the account's token")
    given = tokens()[0]
    config = yaml.safe_load(control_plane.read_text())
    config["users"] = [{"name": user["name"], "user": {"token": given}} for user in config["users"]]
    path = tmp_path / "token.kubeconfig"
    path.write_text(yaml.safe_dump(config))
    path.chmod(0o600)
    fleet.api.kubeconfig = path
    return given


def asked_by_sudo(fleet: SimFleet, path: Path) -> tuple[str, str]:
    """Let sudo ask for a password on every node; return the words that give it to fleetdrv."""
    path.write_text(f"{SUDO}\n")
    path.chmod(0o600)
    for node in fleet.nodes.values():
        (node.folder / "sudo-sha256").write_text(f"{hashlib.sha256(SUDO.encode()).hexdigest()}  -\n")
    return ("--sudo-password-file", str(path))


@pytest.mark.timeout(900)
def test_no_secret_is_left_anywhere_by_rollouts_that_work_and_that_fail(
    fleet: SimFleet, token: str, tmp_path: Path
) -> None:
    markers = {"password": PASSWORD, "sudo's password": SUDO, "token": token}
    inventory = yaml.safe_load(fleet.inventory.read_text())
    inventory["all"]["children"]["gpu"]["vars"] |= {"ansible_become_password": PASSWORD, "ansible_user": "admin"}
    fleet.inventory.write_text(yaml.safe_dump(inventory))
    sudo = asked_by_sudo(fleet, tmp_path / "sudo")
    metrics = tmp_path / "gpu.prom"
    told: list[Ended] = []
    with watched(markers) as caught:
        for command, version, *options in (
            ("plan", "1.0"),
            ("apply", "1.0", "--yes", "--log-json", "--metrics-file", str(metrics)),
            ("drift", "1.0", "--json"),
            ("apply", "1.3", "--yes", "--json"),
            ("remediate", "1.0", "--metrics-file", str(metrics)),
            ("rollback", "1.0", "--yes"),
        ):
            book = str(fleet.playbook(version))
            told.append(fleet.fleetdrv(command, book, "-i", str(fleet.inventory), *sudo, *options))
        pool = fleet.tag
        for words in (("status", pool, "--json"), ("pause", pool, "--reason", "r"), ("resume", pool)):
            told.append(fleet.fleetdrv(*words, code=0))
    assert [ended.code for ended in told] == [2, 0, 0, 5, 0, 4, 0, 0, 0], told
    assert caught == []
    assert all((node.folder / "sudo-asked").read_text() for node in fleet.nodes.values())
    said = f"{told}{json.dumps([fleet.node(name) for name in fleet.nodes])}{json.dumps(fleet.lease())}"
    events = fleet.admin.get("/api/v1/namespaces/default/events")["items"]
    assert {"DriverInstalled", "DriverRolledBack"} <= {event["reason"] for event in events}
    said += json.dumps(events)
    for name, marker in markers.items():
        assert marker not in said, name
        given = {str(fleet.inventory), str(tmp_path / "sudo"), str(tmp_path / "token.kubeconfig")}
        assert set(files_with(marker, tmp_path)) <= given, "journals, metrics, caches, and the nodes' own disks"
    assert files_with(PASSWORD, fleet.inventory.parent), "the search finds what is there"


def test_the_watch_and_the_search_find_what_is_there(tmp_path: Path) -> None:
    """A test that looks for nothing in the wrong place would pass, too."""
    with watched({"password": PASSWORD}) as caught:
        argv = [sys.executable, "-c", "import time; time.sleep(0.3)", PASSWORD, "kubectl"]
        subprocess.run(argv, check=True)
        time.sleep(0.05)
    assert caught
    (tmp_path / "a").write_text(f"x{PASSWORD}y")
    (tmp_path / "b").write_text(base64.b64encode(PASSWORD.encode()).decode())
    (tmp_path / "c").write_text("no secret")
    assert files_with(PASSWORD, tmp_path) == [str(tmp_path / "a"), str(tmp_path / "b")]
