"""A process's cgroup in every spelling that a kubelet gives it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

_USERS = Path(__file__).parents[2] / "fleetdrv/scripts/users.sh"
_UID = "0f6a1c52-3b7e-4c1d-9a35-7d2f8e4b6a10"
_BARS, _ID = _UID.replace("-", "_"), "8c1d" * 16
_SLICE = f"kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{_BARS}.slice"
_FORMS = {
    "v2, systemd, containerd": f"0::/{_SLICE}/cri-containerd-{_ID}.scope",
    "v2, systemd, cri-o": f"0::/{_SLICE}/crio-{_ID}.scope",
    "v2, systemd, cri-o, in a folder": f"0::/{_SLICE}/crio-{_ID}.scope/container",
    "v2, systemd, docker": f"0::/{_SLICE}/docker-{_ID}.scope",
    "v2, systemd, guaranteed": f"0::/kubepods.slice/kubepods-pod{_BARS}.slice/cri-containerd-{_ID}.scope",
    "v2, cgroupfs": f"0::/kubepods/besteffort/pod{_UID}/{_ID}",
    "v2, cgroupfs, guaranteed": f"0::/kubepods/pod{_UID}/{_ID}",
    "v1, cgroupfs": f"11:devices:/kubepods/burstable/pod{_UID}/{_ID}\n0::/",
    "v1, systemd": f"4:cpu,cpuacct:/{_SLICE}/docker-{_ID}.scope\n0::/system.slice/containerd.service",
    "kind, nested": f"0::/kubelet.slice/kubelet-{_SLICE.replace('/', '/kubelet-')}/cri-containerd-{_ID}.scope",
}


def words(cgroup: str) -> list[str]:
    script = f'. {_USERS}; cgroup_words "$1"; printf "%s|%s|%s" "$pod" "$container" "$unit"'
    said = subprocess.run(["sh", "-euc", script, "sh", cgroup], capture_output=True, text=True, check=True)
    assert not said.stderr
    return said.stdout.split("|")


@pytest.mark.parametrize("form", _FORMS)
def test_pod_and_container(form: str) -> None:
    pod, container, unit = words(_FORMS[form])
    assert (pod, container) == (_UID, _ID)
    assert not unit or "v1" in form


def test_what_is_of_no_pod() -> None:
    assert words("0::/system.slice/nvidia-persistenced.service") == ["", "", "nvidia-persistenced.service"]
    assert words("0::/user.slice/user-0.slice/session-3.scope") == ["", "", ""]
    assert words("0::/") == words("") == ["", "", ""]
    assert words("0::/machine.slice/libpod-podman.scope/pod1")[0] == ""
