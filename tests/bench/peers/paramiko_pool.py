"""A bare Paramiko pool: HOSTS PORT KEY KNOWN_HOSTS SCRIPT WORD… ; host keys verified, known_hosts parsed once."""

from __future__ import annotations

import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import paramiko

hosts_file, port, key_file, known_file, script_file, *words = sys.argv[1:]
HOSTS = Path(hosts_file).read_text().split()
SCRIPT = Path(script_file).read_text()
KEY = paramiko.Ed25519Key.from_private_key_file(key_file)
LINES = Path(known_file).read_text().splitlines()
KNOWN = {line.split()[0]: paramiko.hostkeys.HostKeyEntry.from_line(line).key for line in LINES}
ONLY = {
    "kex": [k for k in paramiko.Transport._preferred_kex if "curve25519" not in k],
    "ciphers": [c for c in paramiko.Transport._preferred_ciphers if c != "aes128-gcm@openssh.com"],
    "keys": [k for k in paramiko.Transport._preferred_keys if k != "ssh-ed25519"],
}
import getpass  # noqa: E402
import shlex  # noqa: E402

COMMAND = shlex.join(("/bin/sh", "-c", SCRIPT, "probe.sh", *words))


def one(host: str) -> bool:
    sock = socket.create_connection((host, int(port)), 30)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    transport = paramiko.Transport(sock, disabled_algorithms=ONLY)
    try:
        transport.start_client(timeout=30)
        if transport.get_remote_server_key() != KNOWN[f"[{host}]:{port}"]:
            raise SystemExit(f"{host}: wrong host key")
        transport.auth_publickey(getpass.getuser(), KEY)
        channel = transport.open_session(timeout=30)
        channel.exec_command(COMMAND)
        channel.shutdown_write()
        out = b""
        while chunk := channel.recv(65536):
            out += chunk
        return channel.recv_exit_status() == 0 and out.rstrip().endswith(b"end")
    finally:
        transport.close()


with ThreadPoolExecutor(20) as pool:
    print(f"ok {sum(pool.map(one, HOSTS))}")
