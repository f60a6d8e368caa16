"""parallel-ssh, pool of 20: HOSTS PORT KEY KNOWN_HOSTS SCRIPT WORD… . It verifies no host key."""

from __future__ import annotations

import getpass
import shlex
import sys
from pathlib import Path

from pssh.clients import ParallelSSHClient

hosts_file, port, key_file, _, script_file, *words = sys.argv[1:]
HOSTS = Path(hosts_file).read_text().split()
SCRIPT = Path(script_file).read_text()
COMMAND = shlex.join(("/bin/sh", "-c", SCRIPT, "probe.sh", *words))
client = ParallelSSHClient(
    HOSTS, user=getpass.getuser(), port=int(port), pkey=key_file, pool_size=20, allow_agent=False
)
output = client.run_command(COMMAND, stop_on_errors=False)  # libssh2 sends no command of more than 32 KB
for host in output:
    host.stdin.write(SCRIPT + "\nexit\n")
    host.stdin.flush()
client.join(output)
served = 0
for host in output:
    lines = list(host.stdout or ())
    served += host.exit_code == 0 and lines[-1:] == ["end"]
    if lines[-1:] != ["end"]:
        print(host.host, host.exit_code, host.exception, lines[-1:], list(host.stderr or ())[-1:])
print(f"ok {served}")
