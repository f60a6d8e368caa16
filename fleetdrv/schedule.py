"""`remediate` as a systemd timer, a line of a crontab, or a Kubernetes CronJob: the text of each. Pure.

Each of the three reads percent signs, dollars, quotes and spaces in its own way; how a word is written for which
of them is decided here, once. What none of them can hold is refused by `demand_words`.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fleetdrv import names
from fleetdrv.errors import InputError

PERIODS = (5, 10, 15, 20, 30, 60)
"""Minutes between two starts: divisors of an hour, which all three can say in one expression."""

NAMESPACE = "fleetdrv"
HOME = "/home/fleetdrv"
FILES = "/etc/fleetdrv"
"""Where a pod finds playbook and inventory."""

_LONGEST_CRONTAB_COMMAND = 998  # MAX_COMMAND of Debian's cron, less newline and end
_LONGEST_CRONJOB_NAME = 52  # the API leaves room for the names of its Jobs
_USER = 65532


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """What is started, how often, with which environment."""

    pool: str
    every_minutes: int
    argv: tuple[str, ...]
    """The whole command; the program and all files by absolute path."""
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str = "root"
    writes: tuple[str, ...] = ()
    """Folders beside its own state that the command writes to."""

    @property
    def minute(self) -> int:
        """The pool's own minute of the period, so that not all pools start at once."""
        return int(hashlib.sha256(self.pool.encode()).hexdigest(), 16) % self.every_minutes

    @property
    def minutes(self) -> tuple[int, ...]:
        """All minutes of an hour at which it starts."""
        return tuple(range(self.minute, 60, self.every_minutes))

    @property
    def cron_times(self) -> str:
        """The five fields of cron.

        >>> Schedule(pool="gpu", every_minutes=15, argv=()).cron_times
        '11,26,41,56 * * * *'
        """
        return f"{','.join(map(str, self.minutes))} * * * *"


def demand_words(schedule: Schedule) -> None:
    """Raise InputError for what no unit file or crontab can hold as it is."""
    for word in (*schedule.argv, *schedule.environment.values(), *schedule.writes):
        bad = next((sign for sign in word if not sign.isprintable()), "")
        if bad:
            raise InputError(f"{word!r}: a schedule cannot hold {bad!r}; name the file otherwise")


# ---- systemd


def systemd(schedule: Schedule) -> dict[str, str]:
    """Return the unit files, name to text."""
    unit = f"fleetdrv-{schedule.pool}"
    environment = {
        **schedule.environment,
        "XDG_STATE_HOME": f"/var/lib/{unit}",
        "XDG_CACHE_HOME": f"/var/cache/{unit}",
    }
    lines = [f"Environment={_systemd_word(f'{key}={value}')}" for key, value in environment.items()]
    # A colon before the program: no variables in the words, so that a dollar is a dollar.
    command = (f":{schedule.argv[0]}", *schedule.argv[1:])
    lines += [f"ExecStart={' '.join(map(_systemd_word, command))}"]
    lines += [f"ReadWritePaths={_systemd_word('-' + path)}" for path in schedule.writes]
    texts = {"pool": schedule.pool, "unit": unit, "user": schedule.user, "lines": "\n".join(lines)}
    times = f"*:{','.join(f'{minute:02}' for minute in schedule.minutes)}"
    delay = schedule.every_minutes * 60 // 5
    return {
        f"{unit}.service": _SERVICE.format(**texts),
        f"{unit}.timer": _TIMER.format(pool=schedule.pool, times=times, delay=delay),
    }


def _systemd_word(word: str) -> str:
    r"""Return a word as systemd.syntax(7) reads it back; specifiers begin with a percent sign.

    >>> print(_systemd_word(r'/srv/50 % "off"\now'))
    "/srv/50 %% \"off\"\\now"
    """
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


_SERVICE = """\
[Unit]
Description=fleetdrv: mend the drivers of pool {pool}
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
User={user}
{lines}
StateDirectory={unit}
CacheDirectory={unit}
# Stopped before its end on purpose (window, budget, pause): the next start goes on.
SuccessExitStatus=5
# Hooks of the playbook run under the same limits as fleetdrv.
# A rollout takes as long as it takes. Asked to stop, fleetdrv starts no more nodes and finishes those in hand; its
# kubectl must live until then, so that only fleetdrv itself gets the signal.
TimeoutStartSec=infinity
TimeoutStopSec=2h
KillMode=mixed
NoNewPrivileges=yes
CapabilityBoundingSet=
PrivateTmp=yes
PrivateDevices=yes
ProtectSystem=strict
ProtectHome=read-only
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
UMask=0077
"""

_TIMER = """\
[Unit]
Description=fleetdrv: when to mend the drivers of pool {pool}

[Timer]
OnCalendar={times}
RandomizedDelaySec={delay}
Persistent=true

[Install]
WantedBy=timers.target
"""


# ---- cron


def cron(schedule: Schedule) -> str:
    r"""Return one line of a crontab(5).

    Cron ends a command at a percent sign without a backslash. What else a backslash means differs between
    crons, so a word with one is refused.

    >>> print(cron(Schedule(pool="gpu", every_minutes=60, argv=("/bin/x", "50% off"))))
    56 * * * * /bin/x '50\% off'
    """
    words = shlex.join(schedule.argv)
    variables = " ".join(f"{key}={shlex.quote(value)}" for key, value in schedule.environment.items())
    command = f"{variables} {words}".strip()
    if "\\" in command:
        raise InputError(f"{command}: a crontab has no sure way to write a backslash; name the file otherwise")
    command = command.replace("%", "\\%")
    if len(command.encode()) > _LONGEST_CRONTAB_COMMAND:
        raise InputError(f"a crontab's line holds 998 bytes, this one has {len(command.encode())}; use a script")
    return f"{schedule.cron_times} {command}"


# ---- a CronJob


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """What a CronJob's pod needs beside the command."""

    image: str
    nodes: tuple[str, ...]
    """The pool: the pod must not run where it may have to drain."""
    files: Mapping[str, str]
    """Key in the ConfigMap to path below FILES."""


def cronjob_name(pool: str) -> str:
    """Return the name of a pool's CronJob, ConfigMap and Secret."""
    name = f"fleetdrv-{pool}"
    if len(name) <= _LONGEST_CRONJOB_NAME:
        return name
    digest = hashlib.sha256(pool.encode()).hexdigest()[:8]
    return f"{name[: _LONGEST_CRONJOB_NAME - 9].rstrip('.-')}-{digest}"


def cronjob(schedule: Schedule, pod: Pod) -> list[dict[str, Any]]:
    """Return the objects: a namespace, an account with the published role, the CronJob."""
    name = cronjob_name(schedule.pool)
    labels = {"app.kubernetes.io/name": "fleetdrv", f"{names.DOMAIN}/pool": schedule.pool}
    enforced = {"pod-security.kubernetes.io/enforce": "restricted"}
    job = {
        "backoffLimit": 0,  # the next period is the next try
        "template": {"metadata": {"labels": labels}, "spec": _pod_spec(schedule, pod, name)},
    }
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": enforced}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "fleetdrv", "namespace": NAMESPACE}},
        _binding("ClusterRoleBinding", "ClusterRole"),
        *(_binding("RoleBinding", "Role", space) for space in (names.LEASE_NAMESPACE, "default")),
        {
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels},
            "spec": {
                "schedule": schedule.cron_times,
                "concurrencyPolicy": "Forbid",
                "startingDeadlineSeconds": schedule.every_minutes * 60,
                "successfulJobsHistoryLimit": 1,
                "failedJobsHistoryLimit": 3,
                "jobTemplate": {"metadata": {"labels": labels}, "spec": job},
            },
        },
    ]


def _binding(kind: str, role: str, namespace: str = "") -> dict[str, Any]:
    group = "rbac.authorization.k8s.io"
    place = {"namespace": namespace} if namespace else {}
    return {
        "apiVersion": f"{group}/v1",
        "kind": kind,
        "metadata": {"name": "fleetdrv-cronjob", **place},
        "subjects": [{"kind": "ServiceAccount", "name": "fleetdrv", "namespace": NAMESPACE}],
        "roleRef": {"kind": role, "apiGroup": group, "name": "fleetdrv"},
    }


def _pod_spec(schedule: Schedule, pod: Pod, name: str) -> dict[str, Any]:
    environment = {**schedule.environment, "HOME": HOME}
    items = [{"key": key, "path": path} for key, path in pod.files.items()]
    return {
        "serviceAccountName": "fleetdrv",
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 7200,  # nodes in hand are finished
        "affinity": _elsewhere(pod.nodes),
        "securityContext": {
            "runAsNonRoot": True,
            **dict.fromkeys(("runAsUser", "runAsGroup", "fsGroup"), _USER),
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": "fleetdrv",
                "image": pod.image,
                # Kubernetes expands $(NAME) in arguments; two dollars are one.
                "command": [word.replace("$(", "$$(") for word in schedule.argv],
                "env": [{"name": key, "value": value.replace("$(", "$$(")} for key, value in environment.items()],
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [
                    {"name": "files", "mountPath": FILES, "readOnly": True},
                    {"name": "home", "mountPath": HOME},
                    {"name": "ssh", "mountPath": f"{HOME}/.ssh", "readOnly": True},
                    {"name": "tmp", "mountPath": "/tmp"},
                ],
            }
        ],
        "volumes": [
            {"name": "files", "configMap": {"name": name, "items": items}},
            {"name": "home", "emptyDir": {}},
            {"name": "ssh", "secret": {"secretName": name, "defaultMode": 0o400}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }


def _elsewhere(nodes: Iterable[str]) -> dict[str, Any]:
    """A pod on a node of the pool would be evicted by its own drain."""
    outside = {"key": "kubernetes.io/hostname", "operator": "NotIn", "values": list(nodes)}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [outside]}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
