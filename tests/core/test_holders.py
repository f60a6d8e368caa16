"""Who keeps a module in use: read strictly, and said with the pod's name and owner."""

from __future__ import annotations

from typing import Any

import pytest

from fleetdrv.holders import Holder, holders, told
from fleetdrv.parse import ProbeError
from fleetdrv.pods import full_title

PROCESS = "process\ttoy\t7\ttrain.py\t/dev/toy0\tu-1\tabcdef0123456789\t"
SERVICE = "process\ttoy\t8\tagent\t/dev/toy0\t\t\ta.service"
TEXT = f"fleetdrv-holders\t1\ndependent\ttoy\ttoy_net\n{PROCESS}\n{SERVICE}\nend\n"


def a_pod(kind: str, owner: str, **labels: str) -> dict[str, Any]:
    references = [{"kind": kind, "name": owner, "controller": True}] if kind else []
    return {"metadata": {"namespace": "ml", "name": "p", "ownerReferences": references, "labels": labels}}


def test_processes_are_read_and_told() -> None:
    pod, host = holders(TEXT)
    assert pod == Holder(
        module="toy", pid=7, command="train.py", device="/dev/toy0", pod="u-1", container="abcdef0123456789"
    )
    said = told((pod, host), {"u-1": "ml/p of Deployment train"})
    assert "process 7 (train.py) has /dev/toy0 open, in pod ml/p of Deployment train (u-1)" in said
    assert " container abcdef012345;" in said
    assert "process 8 (agent) has /dev/toy0 open, in a.service" in said
    assert "in pod u-1" in told((pod,), {}), "a pod that the API does not know any more is named by its UID"


SPOILT = ["", TEXT[:-4], TEXT.replace("\t7\t", "\tx\t"), TEXT.replace("dependent", "what")]


@pytest.mark.parametrize("text", SPOILT)
def test_what_was_cut_or_is_unknown_is_an_error_and_not_nobody(text: str) -> None:
    with pytest.raises(ProbeError):
        holders(text)


def test_the_owner_is_the_one_that_people_know() -> None:
    assert full_title(a_pod("ReplicaSet", "web-5d4f", **{"pod-template-hash": "5d4f"})) == "ml/p of Deployment web"
    assert full_title(a_pod("ReplicaSet", "web-5d4f")) == "ml/p of ReplicaSet web-5d4f"
    assert full_title(a_pod("DaemonSet", "plugin")) == "ml/p of DaemonSet plugin"
    assert full_title(a_pod("StatefulSet", "db")) == "ml/p of StatefulSet db"
    assert full_title(a_pod("", "")) == "ml/p"
