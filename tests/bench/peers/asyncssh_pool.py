"""asyncssh, 20 at a time: HOSTS PORT KEY KNOWN_HOSTS SCRIPT WORD… ; host keys verified."""

from __future__ import annotations

import asyncio
import getpass
import shlex
import sys
from pathlib import Path

import asyncssh

hosts_file, port, key_file, known_file, script_file, *words = sys.argv[1:]
HOSTS = Path(hosts_file).read_text().split()
SCRIPT = Path(script_file).read_text()
KEY = asyncssh.read_private_key(key_file)
KNOWN = asyncssh.read_known_hosts(known_file)
COMMAND = shlex.join(("/bin/sh", "-c", SCRIPT, "probe.sh", *words))


async def one(host: str, turns: asyncio.Semaphore) -> bool:
    async with (
        turns,
        asyncssh.connect(
            host,
            int(port),
            username=getpass.getuser(),
            client_keys=[KEY],
            known_hosts=KNOWN,
            config=None,
            agent_path=None,
            kex_algs=["curve25519-sha256"],
            encryption_algs=["aes128-gcm@openssh.com"],
        ) as link,
    ):
        result = await link.run(COMMAND, input=b"", encoding=None)
        return result.exit_status == 0 and bytes(result.stdout or b"").rstrip().endswith(b"end")


async def main() -> None:
    turns = asyncio.Semaphore(20)
    print(f"ok {sum(await asyncio.gather(*(one(host, turns) for host in HOSTS)))}")


asyncio.run(main())
