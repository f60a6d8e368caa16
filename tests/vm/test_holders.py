"""Who keeps the device open is named, whoever it is; nothing is forced; once he lets go the same command finishes.

The processes are real, in cgroups named as both of the kubelet's drivers name them; the pods are the API's. A
parameter of the module is changed: that needs a reload, as a new version does, and no compiler.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from tests.rollout.sim_fleet import Ended
from tests.vm.vm_fleet import CODE, VmFleet, eventually

NODE = "node-1"
DEVICE = "/dev/fleetdrv_toy"
CONTAINER = "8c1d" * 16
PLUGIN = "plugin"
_FIND = "for p in /proc/[0-9]*; do case $(readlink $p/fd/0) in {device}) echo ${{p#/proc/}};; esac; done"


@dataclass(frozen=True)
class Process:
    """A process on the node that has the device open."""

    fleet: VmFleet
    pid: str
    pod: str = ""

    def runs(self) -> bool:
        """Whether it is still there, and has it open."""
        return self.fleet.ssh(NODE, f"readlink /proc/{self.pid}/fd/0 || :").strip() == DEVICE

    def end(self) -> None:
        """Let go of the device."""
        self.fleet.ssh(NODE, f"kill -9 {self.pid} 2>/dev/null || :; sleep 0.5")


def cgroup(pod: str, driver: str) -> str:
    """Name the cgroup of a pod's container under one of the kubelet's cgroup drivers, or nested as kind does it.

    The lab's kubelet does not look into the nested one when it ends a pod.
    """
    flat = pod.replace("-", "_")
    return "/sys/fs/cgroup/" + {
        "systemd": f"kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{flat}.slice/"
                   f"cri-containerd-{CONTAINER}.scope",
        "nested": f"kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{flat}.slice/"
                  f"cri-containerd-{CONTAINER}.scope",
        "cgroupfs": f"kubepods/burstable/pod{pod}/{CONTAINER}",
    }[driver]


def hold(fleet: VmFleet, pod: str = "", driver: str = "systemd", once: str = ":") -> Process:
    """Start a process that opens the device and sleeps, in a pod's cgroup if one is given.

    `once` is a command that ends when the device is to be opened.
    """
    place = cgroup(pod, driver)
    join = f"mkdir -p {place} && echo $$ >{place}/cgroup.procs && " if pod else ""
    script = f"{join}{once}; exec sleep 100000 <{DEVICE}"
    pid = fleet.ssh(NODE, f"setsid bash -c '{script}' </dev/null >/dev/null 2>&1 & echo $!").strip()
    process = Process(fleet, pid, pod)
    if once == ":":
        eventually(process.runs, "the process to open the device", 60)
    return process


@dataclass(frozen=True)
class Loaded:
    """The fleet, its driver loaded on the node and nobody using it, and the parameter that is wanted."""

    fleet: VmFleet
    greeting: str

    def apply(self, **more: Any) -> Ended:
        """Try to go there, in vain."""
        ended = self.fleet.apply("1.0", "-l", NODE, code=None, greeting=self.greeting, **more)
        assert ended.code in (4, 5), ended
        return ended

    def finish(self, **more: Any) -> None:
        """Give the same command, now that the device is free."""
        ended = self.fleet.apply("1.0", "-l", NODE, greeting=self.greeting, **more)
        assert f"{NODE}: changed" in ended.out, ended
        assert greeting(self.fleet) == self.greeting


@pytest.fixture
def loaded(fleet: VmFleet) -> Iterator[Loaded]:
    """The driver at 1.0, with whatever parameter the test before has left."""
    free_the_device(fleet)
    if fleet.ssh(NODE, f"{CODE} || :").strip() != "1.0":
        fleet.apply("1.0", "-l", NODE)
    yield Loaded(fleet, "good evening" if greeting(fleet) == "good morning" else "good morning")
    free_the_device(fleet)


def greeting(fleet: VmFleet) -> str:
    """Return the parameter as the loaded module has it."""
    return fleet.ssh(NODE, "cat /sys/module/fleetdrv_toy/parameters/greeting").strip()


def free_the_device(fleet: VmFleet) -> None:
    """End whatever has it open."""
    fleet.ssh(NODE, f"for pid in $({_FIND.format(device=DEVICE)}); do kill -9 $pid; done; sleep 0.5")


def assert_named(said: str, process: Process, owner: str = "") -> None:
    """Whoever reads it knows whom to ask."""
    assert f"process {process.pid} (sleep)" in said
    assert DEVICE in said
    if process.pod:
        assert f"{owner} ({process.pod})" in said


def assert_untouched(fleet: VmFleet, process: Process, before: dict[str, Any]) -> None:
    """Nothing was forced, and the node serves as before."""
    assert process.runs()
    assert fleet.end_state(NODE) == before


def test_a_plain_process_is_named_and_the_node_goes_back_untouched(loaded: Loaded) -> None:
    process, before = hold(loaded.fleet), loaded.fleet.end_state(NODE)
    ended = loaded.apply()
    assert_named(ended.out, process)
    assert_untouched(loaded.fleet, process, before)
    process.end()
    loaded.finish()


def test_a_service_of_the_host_is_named_by_its_unit(loaded: Loaded) -> None:
    loaded.fleet.ssh(NODE, f"systemd-run --quiet --unit=watcher sh -c 'exec sleep 100000 <{DEVICE}'")
    pid = loaded.fleet.ssh(NODE, "systemctl show -P MainPID watcher").strip()
    process = Process(loaded.fleet, pid)
    eventually(process.runs, "the service to open the device", 60)
    before = loaded.fleet.end_state(NODE)
    ended = loaded.apply()
    assert f"process {pid} (sleep) has {DEVICE} open, in watcher.service" in ended.out
    assert_untouched(loaded.fleet, process, before)
    loaded.fleet.ssh(NODE, "systemctl stop watcher")
    loaded.finish()


def test_a_deployments_pod_goes_with_the_drain_and_frees_the_device(loaded: Loaded) -> None:
    pod = shop_pod(loaded.fleet)
    process = hold(loaded.fleet, pod["metadata"]["uid"])
    loaded.finish()
    assert not process.runs()


def test_a_deployments_pod_that_the_drain_leaves_alone_is_named(loaded: Loaded) -> None:
    pod = shop_pod(loaded.fleet)
    process, before = hold(loaded.fleet, pod["metadata"]["uid"]), loaded.fleet.end_state(NODE)
    left = {"skip": [{"selector": "app=shop"}]}
    ended = loaded.apply(drain=left)
    assert_named(ended.out, process, f"shop/{pod['metadata']['name']} of Deployment shop")
    assert_untouched(loaded.fleet, process, before)
    assert pod["metadata"]["uid"] in [p["metadata"]["uid"] for p in loaded.fleet.pods(NODE, "shop")]
    process.end()
    loaded.finish(drain=left)


def test_a_process_that_outlives_its_pod_is_named_with_the_pods_owner(loaded: Loaded) -> None:
    pod = shop_pod(loaded.fleet)
    name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
    process, before = hold(loaded.fleet, uid, "nested"), loaded.fleet.end_state(NODE)
    ended = loaded.apply()
    assert_named(ended.out, process, f"shop/{name} of Deployment shop")
    assert_untouched(loaded.fleet, process, before)
    assert uid not in [p["metadata"]["uid"] for p in loaded.fleet.pods(NODE, "shop")]
    process.end()
    loaded.finish()


def test_an_agent_that_tolerates_everything_is_named_and_stays(loaded: Loaded) -> None:
    pod = loaded.fleet.pods(NODE, "agent")[0]
    uid = pod["metadata"]["uid"]
    process, before = hold(loaded.fleet, uid, "cgroupfs"), loaded.fleet.end_state(NODE)
    ended = loaded.apply()
    assert_named(ended.out, process, f"shop/{pod['metadata']['name']} of DaemonSet agent")
    assert "tolerates our taint" in ended.out
    assert_untouched(loaded.fleet, process, before)
    assert [p["metadata"]["uid"] for p in loaded.fleet.pods(NODE, "agent")] == [uid]
    process.end()
    loaded.finish()


def test_a_device_plugin_goes_and_is_back_before_the_uncordon(loaded: Loaded) -> None:
    with device_plugin(loaded.fleet) as pod:
        process = hold(loaded.fleet, pod["metadata"]["uid"], "cgroupfs")
        loaded.finish()
        assert not process.runs()
        back = loaded.fleet.pods(NODE, PLUGIN)
        assert [p["metadata"]["uid"] for p in back] != [pod["metadata"]["uid"]]
        assert back[0]["status"]["phase"] == "Running"


@pytest.mark.parametrize("who", ["pod", "host"])
def test_a_device_that_is_opened_between_drain_and_unload(loaded: Loaded, who: str) -> None:
    pod = loaded.fleet.pods(NODE, "agent")[0] if who == "pod" else None
    uid = pod["metadata"]["uid"] if pod else ""
    jobs = "/var/lib/fleetdrv/jobs/*.outage.*/digest"
    # The shell itself looks and opens: nothing is to be started in between.
    pause = "rm -f /run/pause; mkfifo /run/pause; exec 9<>/run/pause"
    wait = f"set -- {jobs}; n=$#; while set -- {jobs}; [ $# -eq $n ]; do read -t 0.1 -u 9; done; exec 9>&-"
    process = hold(loaded.fleet, uid, "cgroupfs", once=f"{pause}; {wait}")
    before = loaded.fleet.end_state(NODE)
    ended = loaded.apply()
    assert process.runs(), ended
    assert "fleetdrv_toy is in use (count 1)" in ended.out, ended
    assert f"process {process.pid} (sleep)" in ended.out
    assert f"{DEVICE} open" in ended.out
    if pod:
        assert f"of pod shop/{pod['metadata']['name']} of DaemonSet agent ({uid})" in ended.out
    assert_untouched(loaded.fleet, process, before)
    process.end()
    loaded.finish()


def shop_pod(fleet: VmFleet) -> dict[str, Any]:
    """A pod of the shop on the node; a drain before this test may have sent all of them away."""
    if not fleet.pods(NODE, "shop"):
        fleet.kubectl("delete", "pods", "--namespace=shop", "--selector=app=shop", "--wait=false")
    eventually(lambda: bool(ready(fleet, "shop")), "a pod of the shop", 120)
    return ready(fleet, "shop")[0]


def ready(fleet: VmFleet, app: str) -> list[dict[str, Any]]:
    """List pods that run on the node."""
    return [pod for pod in fleet.pods(NODE, app) if pod.get("status", {}).get("phase") == "Running"]


@contextmanager
def device_plugin(fleet: VmFleet) -> Iterator[dict[str, Any]]:
    """Run a DaemonSet that tolerates no taint of ours on the nodes; its pod on the node."""
    labels = {"app": PLUGIN}
    spec = {"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "none"}],
            "nodeSelector": {"fleetdrv.io/lab": "true"}}
    body = {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": PLUGIN, "namespace": "shop"},
            "spec": {"selector": {"matchLabels": labels},
                     "template": {"metadata": {"labels": labels}, "spec": spec}}}
    path = fleet.scratch / "plugin.json"
    path.write_text(json.dumps(body))
    fleet.kubectl("apply", "--validate=false", "-f", str(path))
    try:
        eventually(lambda: bool(ready(fleet, PLUGIN)), "the plugin", 120)
        yield ready(fleet, PLUGIN)[0]
    finally:
        fleet.kubectl("delete", "daemonset", PLUGIN, "--namespace=shop", "--wait=false")
