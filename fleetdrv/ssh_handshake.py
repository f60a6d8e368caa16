"""From an open wire to an authenticated connection: key exchange, host key, log-in, each with its limit.

This is where Paramiko's many exceptions become two: worth another try (Unreachable), or not before something
is changed (Permanent).
"""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import paramiko
from paramiko.ssh_exception import IncompatiblePeer

from fleetdrv.dial import Wire
from fleetdrv.errors import NodeError, Permanent, Unreachable
from fleetdrv.host_certificate import SUFFIX, find_fault
from fleetdrv.known_hosts import Finding, KnownHosts, Verdict, fingerprint, known_line, lookup_name
from fleetdrv.ssh_key_file import Complaint
from fleetdrv.ssh_keys import AgentTrouble, Keyring, Offer
from fleetdrv.ssh_settings import Target
from fleetdrv.ssh_transport import DISABLED, FleetTransport

STEP = "connect"
BANNER_SECONDS = 20.0
KEY_EXCHANGE_SECONDS = 30.0
LOG_IN_SECONDS = 30.0


class KeysRefused(Permanent):
    """The host takes none of the keys that could be offered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """The key that a host has shown, and what is known of it."""

    key_type: str
    blob: bytes
    finding: Finding
    fault: str = ""
    """Why its certificate does not vouch for it."""
    vouched: bool = False
    """An authority does."""

    @property
    def known(self) -> bool:
        """Whether the host is who it says."""
        return self.vouched or self.finding.verdict is Verdict.MATCH

    def __str__(self) -> str:
        return f"{self.key_type} {fingerprint(self.blob)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Handshake:
    """One attempt to become a known user on a known host."""

    node: str
    target: Target
    known: KnownHosts
    user_file: Path | None
    """Where the operator would add a key."""
    keyring: Keyring
    end: float
    """time.monotonic() at which the attempt is over, whatever stage it is in."""

    def perform(self, wire: Wire, disabled: Mapping[str, Sequence[str]] = DISABLED) -> FleetTransport:
        """Return the connection; whatever is raised, wire and thread are gone.

        Raises IncompatiblePeer for the caller to try again with other algorithms.
        """
        with self._begun(wire, disabled) as transport:
            shown = self._judge_host_key(transport)
            if not shown.known:
                raise self.refusal(shown)
            self._log_in(transport)
        transport.watch()
        return transport

    def show(self, wire: Wire, disabled: Mapping[str, Sequence[str]] = DISABLED) -> Shown:
        """Return the host's key and what is known of it, without logging in. Raises as `perform`."""
        with self._begun(wire, disabled) as transport:
            shown = self._judge_host_key(transport)
        transport.close()
        return shown

    @contextmanager
    def _begun(self, wire: Wire, disabled: Mapping[str, Sequence[str]]) -> Iterator[FleetTransport]:
        """Exchange keys; an error here or in the body ends the connection."""
        host, port = self.target.key_name, self.target.key_port
        transport = FleetTransport(
            wire,
            known_types=self.known.key_types(host, port),
            certificates=bool(self.known.authorities(host, port)),
            disabled=disabled,
        )
        try:
            self._exchange_keys(transport)
            yield transport
        except (NodeError, IncompatiblePeer):
            transport.close()
            raise
        except (paramiko.SSHException, OSError, EOFError) as error:
            failure = self._unreachable(transport, error)  # before closing adds its own trouble
            transport.close()
            raise failure from error
        except BaseException:
            transport.close()
            raise

    def _left(self, seconds: float) -> float:
        return max(0.0, min(seconds, self.end - time.monotonic()))

    def _exchange_keys(self, transport: FleetTransport) -> None:
        transport.banner_timeout = BANNER_SECONDS
        transport.handshake_timeout = KEY_EXCHANGE_SECONDS
        done = threading.Event()
        transport.start_client(event=done)
        if not done.wait(self._left(BANNER_SECONDS)) and not transport.remote_version:
            raise TimeoutError("connected, but no SSH banner came")
        if not done.wait(self._left(KEY_EXCHANGE_SECONDS)):
            raise TimeoutError("the key exchange did not end")
        if not transport.is_active():
            raise transport.get_exception() or paramiko.SSHException("hung up during the key exchange")

    def _judge_host_key(self, transport: FleetTransport) -> Shown:
        """As ssh(1) does: a key that is not known by itself may still be vouched for by its certificate."""
        key, host, port = transport.get_remote_server_key(), self.target.key_name, self.target.key_port
        finding = self.known.judge(host, port, key.asbytes())
        fault, vouched = "", False
        certified = (transport.host_key_type or "").endswith(SUFFIX)
        if certified and finding.verdict not in (Verdict.MATCH, Verdict.REVOKED):
            fault = find_fault(
                transport.host_key_blob,
                host,
                authorities=self.known.authorities(host, port),
                revoked=self.known.revocations(host, port),
                now=time.time(),
            )
            vouched = not fault
        return Shown(key_type=key.get_name(), blob=key.asbytes(), finding=finding, fault=fault, vouched=vouched)

    def refusal(self, shown: Shown) -> Permanent:
        """Return why a host that shows this key is not logged in to, and what to do about it."""
        finding, name = shown.finding, lookup_name(self.target.key_name, self.target.key_port)
        places = ", ".join(entry.place for entry in finding.entries)
        evidence = "\n".join(f"{e.place}: {e.key_type} {fingerprint(e.blob)}" for e in finding.entries)
        if finding.verdict is Verdict.REVOKED:
            return self._permanent(
                f"host key of {name} is revoked by {places}: {shown}", evidence, "give the host a new key"
            )
        check = "compare with `ssh-keygen -lf /etc/ssh/ssh_host_*_key.pub` on the host's own console, then: "
        if finding.verdict is Verdict.CHANGED:
            files = dict.fromkeys(str(entry.path) for entry in finding.entries)
            remove = "; ".join(shlex.join(("ssh-keygen", "-f", file, "-R", name)) for file in files)
            return self._permanent(
                f"host key of {name} CHANGED, or somebody is in between: shown {shown}, known at {places}",
                evidence,
                check + remove,
            )
        return self._permanent(
            f"host key of {name} is unknown: {shown}{shown.fault and '; ' + shown.fault}",
            "\n".join(self.known.complaints),
            f"fleetdrv trust -i INVENTORY --limit {self.node}; or {check}"
            f"echo {shlex.quote(known_line(name, shown.blob))} >> "
            + shlex.quote(str(self.user_file or "~/.ssh/known_hosts")),
        )

    def offers(self) -> tuple[tuple[Offer, ...], tuple[Complaint, ...]]:
        """Return the keys to try, and why others cannot be."""
        wanted = self.target
        return self.keyring.offers(
            wanted.user,
            wanted.identity_files,
            wanted.certificate_files,
            agent=wanted.agent,
            only_files=wanted.identities_only,
        )

    def _log_in(self, transport: FleetTransport) -> None:
        offers, complaints = self.offers()
        remedy = next((each.remedy for each in complaints if each.remedy), "")
        if not offers:
            why = "; ".join(map(str, complaints)) or "no key in ~/.ssh and none in the ssh agent"
            remedy = remedy or "name one: ansible_ssh_private_key_file"
            raise self._permanent(f"no key to log in with: {why}", "", remedy)
        for offer in offers:
            if self._try_key(transport, offer):
                self.keyring.worked(self.target.user, self.target.identity_files, offer)
                return
        tried = ", ".join(str(offer) for offer in offers)
        other = f"add the key to {self.target.user}'s authorized_keys, or set ansible_user or "
        other += "ansible_ssh_private_key_file"
        raise KeysRefused(
            self.node,
            STEP,
            f"{self.target}: {self.target.user} may not log in with {tried}",
            evidence="\n".join(map(str, complaints)),
            remedy=f"{remedy}; or {other}" if remedy else other,
        )

    def _try_key(self, transport: FleetTransport, offer: Offer) -> bool:
        transport.auth_timeout = self._left(LOG_IN_SECONDS)
        try:
            further = transport.auth_publickey(self.target.user, offer.key)
        except paramiko.BadAuthenticationType as error:
            raise self._permanent(f"the host takes no keys, only: {', '.join(error.allowed_types)}") from error
        except paramiko.AuthenticationException as error:
            # Paramiko calls a link that died during the log-in an authentication failure, too
            if not transport.is_active() or "timeout" in str(error).lower():
                raise self._unreachable(transport, error) from error
            return False
        if further:
            raise self._permanent(f"the host wants more than a key: {', '.join(further)}")
        return True

    def _unreachable(self, transport: FleetTransport, error: BaseException) -> NodeError:
        trouble = transport.trouble or error
        ending = transport.wire.ending
        if transport.wire.hopeless:
            return self._permanent(ending)
        if isinstance(trouble, AgentTrouble):
            return self._permanent(str(trouble), "", "ssh-add -l")
        if transport.disconnect_reason:
            cause = f"the host hung up: {transport.disconnect_reason}"
            if "authentication" in cause.lower():
                return self._permanent(cause)
        elif isinstance(trouble, EOFError):
            cause = "the host hung up"
        else:
            cause = str(trouble) or type(trouble).__name__
        cause = ending if ending and isinstance(trouble, EOFError) else "; ".join(filter(None, (cause, ending)))
        return Unreachable(self.node, STEP, f"{self.target}: {cause}", remedy=self._by_hand())

    def _permanent(self, cause: str, evidence: str = "", remedy: str = "") -> Permanent:
        return Permanent(
            self.node, STEP, f"{self.target}: {cause}", evidence=evidence, remedy=remedy or self._by_hand()
        )

    def _by_hand(self) -> str:
        return by_hand(self.target)


def by_hand(target: Target) -> str:
    """Return the command with which an operator sees the same for himself."""
    jump = ("-J", f"{target.jump.user}@{target.jump.address}:{target.jump.port}") if target.jump else ()
    if target.proxy_command:
        jump = ("-o", f"ProxyCommand={target.proxy_command.replace('%', '%%')}")
    keys = [word for path in target.identity_files for word in ("-i", str(path))]
    place = ("-p", str(target.port), f"{target.user}@{target.address}")
    return shlex.join(("ssh", "-v", *keys, *jump, *place, "true"))
