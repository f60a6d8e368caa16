"""What each program of the practice control plane is told, and why where it is not the usual."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fleetdrv.lab import pki

OURSELVES = "fleetdrv:control-plane"
"""A group of the controllers and the scheduler, for the audit policy alone."""

AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "userGroups": ["system:nodes", OURSELVES]},
        {"level": "None", "users": ["system:apiserver"]},
        {"level": "Metadata", "verbs": ["create", "update", "patch", "delete", "deletecollection"]},
    ],
}


@dataclass(frozen=True, slots=True)
class Plane:
    """Where everything is; the files in the folder are named here and nowhere else."""

    folder: Path
    ports: Mapping[str, int]

    def pair(self, name: str) -> pki.Pair:
        """Name the certificate and the key that go by that name."""
        return pki.Pair(self.folder / f"{name}.crt", self.folder / f"{name}.key")


def commands(plane: Plane) -> dict[str, list[str]]:
    """Give each program's flags, in the order in which the programs start."""
    return {
        "etcd": _flags(_etcd(plane)),
        "kube-apiserver": _flags(_api_server(plane)),
        "kube-controller-manager": _flags(_controllers(plane)),
        "kube-scheduler": _flags(_client(plane, "kube-scheduler")),
    }


def _flags(values: Mapping[str, object]) -> list[str]:
    return [f"--{name}={value}" for name, value in values.items()]


def _etcd(plane: Plane) -> dict[str, object]:
    clients = f"https://127.0.0.1:{plane.ports['etcd']}"
    peers = f"https://127.0.0.1:{plane.ports['etcd-peer']}"
    pair, authority = plane.pair("etcd"), plane.pair("etcd-ca").certificate
    trust = {"cert-file": pair.certificate, "key-file": pair.key, "trusted-ca-file": authority}
    return {
        "name": "lab",
        "data-dir": plane.folder / "etcd",
        "unsafe-no-fsync": "true",  # a power cut may lose the practice cluster, and commits are quick
        "listen-client-urls": clients,
        "advertise-client-urls": clients,
        "listen-peer-urls": peers,
        "initial-advertise-peer-urls": peers,
        "initial-cluster": f"lab={peers}",
        **trust,
        "client-cert-auth": "true",
        **{f"peer-{name}": value for name, value in trust.items()},
        "peer-client-cert-auth": "true",
        "logger": "zap",
        "log-level": "warn",
    }


def _api_server(plane: Plane) -> dict[str, object]:
    folder, pair, store = plane.folder, plane.pair("api"), plane.pair("etcd")
    return {
        "etcd-servers": f"https://127.0.0.1:{plane.ports['etcd']}",
        "etcd-cafile": plane.pair("etcd-ca").certificate,
        "etcd-certfile": store.certificate,
        "etcd-keyfile": store.key,
        "bind-address": "127.0.0.1",
        "advertise-address": "127.0.0.1",
        "endpoint-reconciler-type": "none",  # endpoints refuse loopback addresses, and no pod asks
        "secure-port": plane.ports["api"],
        "tls-cert-file": pair.certificate,
        "tls-private-key-file": pair.key,
        "client-ca-file": plane.pair("ca").certificate,
        "anonymous-auth": "false",
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
        "disable-admission-plugins": "ServiceAccount",  # else pods wait for a token that no kubelet mounts
        "service-account-issuer": "https://kubernetes.default.svc",
        "service-account-key-file": folder / "service-accounts.key",
        "service-account-signing-key-file": folder / "service-accounts.key",
        "service-cluster-ip-range": "10.96.0.0/24",
        "allow-privileged": "true",
        "audit-policy-file": folder / "audit-policy.yaml",
        "audit-log-path": folder / "audit.log",
        "audit-log-maxsize": 100,
        "audit-log-maxbackup": 1,
        "profiling": "false",
    }


def _client(plane: Plane, name: str) -> dict[str, object]:
    """Give what the API server's own clients have in common: no port, no election of a leader."""
    return {
        "kubeconfig": plane.folder / f"{name}.kubeconfig",
        "leader-elect": "false",
        "port": 0,
        "secure-port": 0,
    }


def _controllers(plane: Plane) -> dict[str, object]:
    return {
        **_client(plane, "kube-controller-manager"),
        "flex-volume-plugin-dir": plane.folder / "flexvolumes",  # else it makes one in /usr
        "node-monitor-grace-period": "120s",  # of 40: a busy machine's heartbeats come late
        "root-ca-file": plane.pair("ca").certificate,
        "service-account-private-key-file": plane.folder / "service-accounts.key",
    }
