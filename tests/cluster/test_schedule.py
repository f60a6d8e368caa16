"""The printed CronJob, as a real API server takes it; its account may do what the published role says, no more."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.fixtures_cluster import KUBECTL

ROOT = Path(__file__).parents[2]
FLEETDRV = str(Path(sys.executable).parent / "fleetdrv")
ACCOUNT = "system:serviceaccount:fleetdrv:fleetdrv"


@pytest.fixture(scope="module")
def printed() -> str:
    """What `fleetdrv schedule` prints for the practice pool."""
    argv = [FLEETDRV, "schedule", "playbooks/toy-1.1.yaml", "-i", "inventories/example.yaml", "--print", "cronjob",
            "--image", "registry/fleetdrv:1", "--pushgateway", "http://push:9091", "--limit", "$(HOME),!gpu-01"]
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60, cwd=ROOT).stdout


def kubectl(kubeconfig: Path, *words: str, given: str = "") -> subprocess.CompletedProcess[str]:
    argv = [KUBECTL, f"--kubeconfig={kubeconfig}", *words]
    return subprocess.run(argv, input=given, capture_output=True, text=True, timeout=60)


def for_this_api(printed: str) -> str:
    """The practice cluster's API is 1.20; there a CronJob, the same field for field, is still a beta."""
    assert printed.count("apiVersion: batch/v1\n") == 1
    return printed.replace("apiVersion: batch/v1\n", "apiVersion: batch/v1beta1\n")


def test_the_api_takes_every_object_and_no_field_is_unknown(
    least_privilege: Path, control_plane: Path, printed: str
) -> None:
    del least_privilege  # it has applied docs/clusterrole.yaml
    namespace, *others = yaml.safe_load_all(for_this_api(printed))
    made = kubectl(control_plane, "apply", "-f", "-", given=json.dumps(namespace))
    assert made.returncode == 0, made.stderr
    for obj in others:
        dry = kubectl(control_plane, "apply", "--dry-run=server", "--validate=true", "-o", "json", "-f", "-",
                      given=json.dumps(obj))
        assert dry.returncode == 0, dry.stderr
        _demand_kept(obj, json.loads(dry.stdout), obj["kind"])


def _demand_kept(sent: object, kept: object, where: str) -> None:
    """An API server drops what it does not know; so all that was sent has to come back."""
    if isinstance(sent, dict):
        assert isinstance(kept, dict)
        for key, value in sent.items():
            assert key in kept, f"{where}.{key} is unknown to the API"
            _demand_kept(value, kept[key], f"{where}.{key}")
    elif isinstance(sent, list):
        assert isinstance(kept, list)
        assert len(sent) == len(kept), where
        for number, value in enumerate(sent):
            _demand_kept(value, kept[number], f"{where}[{number}]")
    else:
        assert sent == kept, where


def test_its_account_may_do_what_the_role_says_and_no_more(
    least_privilege: Path, control_plane: Path, printed: str
) -> None:
    del least_privilege
    applied = kubectl(control_plane, "apply", "-f", "-", given=for_this_api(printed))
    assert applied.returncode == 0, applied.stderr

    def may(*words: str) -> bool:
        return kubectl(control_plane, "auth", "can-i", f"--as={ACCOUNT}", *words).stdout.strip() == "yes"

    assert may("patch", "nodes")
    assert may("create", "pods", "--subresource=eviction", "--all-namespaces")
    assert may("update", "leases", "--namespace=kube-system")
    assert may("create", "events", "--namespace=default")
    assert not may("create", "pods", "--namespace=fleetdrv")
    assert not may("get", "secrets", "--namespace=fleetdrv")
    assert not may("delete", "nodes")
    assert not may("patch", "events", "--namespace=default")


def test_a_dollar_in_an_argument_is_not_a_variable_of_the_pod(printed: str) -> None:
    *_, job = yaml.safe_load_all(printed)
    (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert "$$(HOME),!gpu-01" in container["command"]
