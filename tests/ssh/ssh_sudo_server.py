"""An sshd whose users are its own: real sudo and PAM over accounts that no other process of this machine sees."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import ssh_server
from ssh_server import Sshd

from fleetdrv.model import Host

PASSWORD = "correct-horse-battery"
USERS: Mapping[str, str] = {
    "asked": "asked ALL=(ALL) ALL",
    "free": "free ALL=(ALL) NOPASSWD: ALL",
    "nobody2": "",
    "tty": "Defaults:tty requiretty\ntty ALL=(ALL) NOPASSWD: ALL",
    "once": "Defaults:once passwd_tries=1\nonce ALL=(ALL) ALL",
    "lectured": "Defaults:lectured lecture=always\nlectured ALL=(ALL) ALL",
}
"""Log-in names, each with its lines of sudoers."""

_PAM = """\
auth [success=done default=ignore] pam_unix.so nodelay
auth optional pam_exec.so quiet expose_authtok {count}
auth requisite pam_deny.so
account required pam_permit.so
session required pam_permit.so
"""
"""Whatever pam_unix rejects is counted, then denied."""


@dataclass
class Users:
    """One server for all users of `USERS`."""

    sshd: Sshd

    def host(self, user: str, name: str = "") -> Host:
        return self.sshd.host(name or user, ansible_user=user)

    def attempts(self) -> int:
        """How often a password was rejected, as PAM tells it."""
        return (self.sshd.folder.parent / "attempts").read_text().count("x")

    def unanswered(self) -> int:
        """How often sudo asked, and nobody answered."""
        return (self.sshd.folder.parent / "attempts").read_text().count("0")


def start(folder: Path) -> Users:
    """Start it in a mount namespace with accounts, sudoers and PAM of its own."""
    (folder / "etc/pam.d").mkdir(parents=True)
    folder.chmod(0o755)
    attempts, count, enter = folder / "attempts", folder / "count", folder / "enter"
    attempts.touch()
    attempts.chmod(0o666)
    count.write_text(
        f'#!/bin/sh\nif [ "$(tr -d "\\\\0")" ]; then printf x; else printf 0; fi >>{attempts}\n'
    )
    files = _accounts()
    files["sudoers"] = "\n".join(("Defaults env_reset", *USERS.values(), ""))
    files["pam.d/sudo"] = _PAM.format(count=count)
    for name, text in files.items():
        (folder / "etc" / name).write_text(text)
    (folder / "etc/sudoers").chmod(0o440)
    mounts = [f"mount --bind {folder}/etc/{name} /etc/{name}" for name in files]
    enter.write_text("\n".join(("#!/bin/sh", "set -e", *mounts, 'exec "$@"', "")))
    for program in (count, enter):
        program.chmod(0o755)
    within = ("unshare", "--mount", "--propagation", "private", str(enter))
    return Users(ssh_server.start(folder / "sshd", within=within))


def _accounts() -> dict[str, str]:
    hashed = subprocess.run(
        ("openssl", "passwd", "-6", "-stdin"), input=PASSWORD, text=True, capture_output=True, check=True
    ).stdout.strip()
    ids = {user: 4200 + number for number, user in enumerate(USERS)}
    passwd = ["root:x:0:0::/root:/bin/sh", "sshd:x:100:65534::/run/sshd:/usr/sbin/nologin"]
    passwd += [f"{user}:x:{number}:{number}::/:/bin/sh" for user, number in ids.items()]
    group = ["root:x:0:", "nogroup:x:65534:", *(f"{user}:x:{number}:" for user, number in ids.items())]
    shadow = ["root:*:19000::::::", *(f"{user}:{hashed}:19000::::::" for user in USERS)]
    return {
        name: "\n".join((*lines, "")) for name, lines in (("passwd", passwd), ("group", group), ("shadow", shadow))
    }
