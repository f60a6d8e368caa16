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
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    etc = folder / "etc"
    (etc / "pam.d").mkdir(parents=True)
    # /usr/sbin/nologin would do for the others; sshd wants its own account
    sshd_user = "sshd:x:100:65534::/run/sshd:/usr/sbin/nologin"
    digest = subprocess.run(
        ("openssl", "passwd", "-6", "-stdin"), input=PASSWORD, text=True, capture_output=True, check=True
    ).stdout.strip()
    ids = {user: 4200 + number for number, user in enumerate(USERS)}
    accounts = [f"{user}:x:{ids[user]}:{ids[user]}::/:/bin/sh" for user in USERS]
    (etc / "passwd").write_text("\n".join(("root:x:0:0:root:/root:/bin/sh", sshd_user, *accounts, "")))
    (etc / "group").write_text("\n".join(("root:x:0:", "nogroup:x:65534:", *(f"{u}:x:{ids[u]}:" for u in USERS), "")))
    (etc / "shadow").write_text("\n".join(("root:*:19000::::::", *(f"{user}:{digest}:19000::::::" for user in USERS), "")))
    (etc / "sudoers").write_text("Defaults env_reset\nroot ALL=(ALL) ALL\n" + "".join(f"{line}\n" for line in USERS.values()))
    (etc / "sudoers").chmod(0o440)
    (etc / "shadow").chmod(0o600)
    (folder / "attempts").write_text("")
    (folder / "attempts").chmod(0o666)
    count = folder / "count"
    count.write_text(f'#!/bin/sh\n[ "$(tr -d "\\\\0")" ] && printf x >>{folder}/attempts || printf 0 >>{folder}/attempts\n')
    count.chmod(0o755)
    # what rejects the password is counted, then rejects
    auth = f"auth [success=done default=ignore] pam_unix.so nodelay\nauth optional pam_exec.so quiet expose_authtok {count}\nauth requisite pam_deny.so\n"
    (etc / "pam.d/sudo").write_text(auth + "account required pam_permit.so\nsession required pam_permit.so\n")
    enter = folder / "enter"
    mounts = "".join(f"mount --bind {etc}/{name} /etc/{name}\n" for name in ("passwd", "group", "shadow", "sudoers", "pam.d/sudo"))
    enter.write_text(f"#!/bin/sh\nset -e\n{mounts}exec \"$@\"\n")
    enter.chmod(0o755)
    return Users(
        ssh_server.start(folder / "sshd", within=("unshare", "--mount", "--propagation", "private", str(enter)))
    )
