"""Every name that fleetdrv leaves on cluster objects, in one place, and the schema they follow."""

from __future__ import annotations

import hashlib
import re

SCHEMA = 3
"""Version of the records below. A record with a newer one is refused: an older fleetdrv must not guess."""

DOMAIN = "fleetdrv.io"
FIELD_MANAGER = "fleetdrv"

CORDON = f"{DOMAIN}/cordon"
"""Node annotation: JSON of our cordon. It exists exactly while a node is out of service by our hand."""

RUN_LABEL = f"{DOMAIN}/run"
"""Node label: id of the run that holds the node, so that `kubectl get nodes -L` shows it."""

MAINTENANCE_TAINT = f"{DOMAIN}/maintenance"
QUARANTINE_TAINT = f"{DOMAIN}/quarantine"
"""Beside a hold: the machine itself is at fault, and takes no new pods until `release`."""
HOLD_LABEL = f"{DOMAIN}/hold"
"""Node label: leave this node alone. Its value is a word or two of the reason."""

HOLD = f"{DOMAIN}/hold"
"""Node annotation beside the label: JSON of who holds the node, why and since when."""

ADDRESS = f"{DOMAIN}/address"
"""Node annotation that an operator may set: the address under which SSH reaches the node, with `-i k8s:`."""

LAST_RESULT = f"{DOMAIN}/last-result"
DRIVER_LABEL_PREFIX = f"{DOMAIN}/driver."

RUN_RECORD = f"{DOMAIN}/run"
"""Lease annotation: JSON of the run (digest, canaries passed, failures spent)."""

PAUSED = f"{DOMAIN}/paused"
"""Lease annotation: who paused the pool, when and why. Any laptop may set or lift it."""

ABORT = f"{DOMAIN}/abort"
"""Lease annotation: id of the run that must start no more nodes."""

COURSE = f"{DOMAIN}/course"
"""Lease annotation: the command that goes on with the run, and who was out when it stopped; for `status`."""

FENCE = f"{DOMAIN}/fence"
"""Node annotation: token of a controller that took the pool over from one that may wake again (fence.py)."""

UNFENCED = f"{DOMAIN}/unfenced"
"""Lease annotation, there from such a take-over until all of the pool's Nodes were written."""

LEASE_NAMESPACE = "kube-system"
LEASE_PREFIX = "fleetdrv-"

AUTOSCALER_OPT_OUTS = {
    "cluster-autoscaler.kubernetes.io/scale-down-disabled": "true",
    "karpenter.sh/do-not-disrupt": "true",
}
"""An autoscaler would remove a node that stands empty and cordoned; these annotations ask it not to."""


_LABEL_VALUE_LIMIT = 63  # Kubernetes' syntax of label values


def lease_name(pool: str) -> str:
    """Return the name of the pool's Lease."""
    return f"{LEASE_PREFIX}{pool}"


def label_value(text: str) -> str:
    """Return the nearest valid label value: 63 characters at most, a short hash where text was cut.

    >>> label_value("535.309.01-1~deb12u1"), label_value("1:2+3~")
    ('535.309.01-1_deb12u1', '1_2_3')
    """
    value = re.sub(r"[^A-Za-z0-9._-]", "_", text).strip("._-")
    if len(value) <= _LABEL_VALUE_LIMIT:
        return value
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{value[: _LABEL_VALUE_LIMIT - 9]}-{digest}"
