"""The contenders, each as it is best run; settings are those of a user who has read its manual."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from tests.bench.hosts import PLAYBOOK, Hosts, probe_script
from tests.bench.measure import Cost

PEERS = Path(__file__).parent / "peers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """One contender: how it is called for `count` hosts, and how many of them it says it has served."""

    name: str
    settings: str
    argv: Callable[[Hosts, int], Sequence[str]]
    served: Callable[[Cost], int]
    env: Callable[[Hosts], Mapping[str, str]] = lambda _: {}
    most: int = 10_000
    """Hosts beyond which a run takes too long to be repeated."""
    requires: str = ""
    """What pip installs for it, into a folder of its own; `apt:PACKAGE` for Debian's."""
    verifies: bool = True
    """Whether it checks host keys."""
    own_facts: bool = False
    """It asks by its own modules, not by the probe's script."""


def place(requirement: str) -> Path:
    """Return the folder of what pip installs for a contender."""
    folder = re.sub("[^A-Za-z0-9.]+", "-", requirement)
    return Path(platformdirs.user_cache_dir("fleetdrv")) / "bench" / folder


def install(tool: Tool) -> str:
    """Have a contender's programs there; return why they are not, or nothing."""
    if tool.requires.startswith("apt:"):
        package = tool.requires.removeprefix("apt:")
        if shutil.which(package):
            return ""
        done = subprocess.run(
            ("apt-get", "install", "-y", "-qq", "--no-install-recommends", package),
            capture_output=True,
            text=True,
            check=False,
        )
        return "" if done.returncode == 0 else done.stderr.strip()[-200:]
    folder = place(tool.requires)
    if not tool.requires or (folder / "complete").exists():
        return ""
    shutil.rmtree(folder, ignore_errors=True)
    for argv in (
        (sys.executable, "-m", "venv", str(folder)),
        (str(folder / "bin/pip"), "install", "-q", "--disable-pip-version-check", *tool.requires.split()),
    ):
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            return done.stderr.strip()[-200:]
    (folder / "complete").touch()
    return ""


def _script(hosts: Hosts) -> str:
    """Return the probe as one remote command, as fleetdrv sends it."""
    return shlex.join(("/bin/sh", "-c", probe_script(hosts.folder).read_text(), "probe.sh", *hosts.words))


def _python(peer: str, requirement: str = "") -> Callable[[Hosts, int], Sequence[str]]:
    python = str(place(requirement) / "bin/python") if requirement else sys.executable

    def argv(hosts: Hosts, count: int) -> Sequence[str]:
        files = (hosts.some(count), str(hosts.port), hosts.key, hosts.known_hosts, probe_script(hosts.folder))
        return (python, str(PEERS / peer), *map(str, files), *hosts.words)

    return argv


def _ok(cost: Cost) -> int:
    found = re.search(r"^ok (\d+)$", cost.out, re.MULTILINE)
    return int(found[1]) if found else 0


def _ends(cost: Cost) -> int:
    return len(re.findall(r"(?:^|: )end$", cost.out, re.MULTILINE))


def looked_at(cost: Cost) -> int:
    """Return how many nodes a document of `plan` or `drift` tells about."""
    try:
        document, _ = json.JSONDecoder().raw_decode(cost.out[cost.out.index("{\n") :])
        nodes = document["nodes"]
    except (ValueError, KeyError):
        return 0
    return sum(node["differs"] is not None for node in nodes.values())


def _fleetdrv(hosts: Hosts, count: int) -> Sequence[str]:
    program = str(Path(sys.executable).with_name("fleetdrv"))
    return (
        program,
        "drift",
        str(PLAYBOOK),
        "-i",
        str(hosts.inventory(count)),
        "--no-cluster",
        "--json",
        "--quiet",
    )


def _at_home(hosts: Hosts) -> dict[str, str]:
    """Each tool reads ~/.ssh/config and its known_hosts as its user has them."""
    return {"HOME": str(hosts.folder / "home"), "XDG_STATE_HOME": str(hosts.folder / "state")}


def _clush(config: str) -> Callable[[Hosts, int], Sequence[str]]:
    def argv(hosts: Hosts, count: int) -> Sequence[str]:
        ssh = f"-F {hosts.folder / config}"
        who = ("--hostfile", str(hosts.some(count)), "-f", "50", "-o", ssh, "-N")
        return (str(place(CLUSTERSHELL) / "bin/clush"), *who, _script(hosts))

    return argv


def _pdsh(hosts: Hosts, count: int) -> Sequence[str]:
    return ("pdsh", "-R", "ssh", "-f", "50", "-w", f"^{hosts.some(count)}", _script(hosts))


def _ansible(book: str, requirement: str = "") -> Callable[[Hosts, int], Sequence[str]]:
    def argv(hosts: Hosts, count: int) -> Sequence[str]:
        extra = hosts.folder / "command.yaml"
        extra.write_text(f"command: !unsafe {json.dumps(_script(hosts))}\n")  # shell has braces, too
        program = str(place(requirement or ANSIBLE) / "bin/ansible-playbook")
        return (program, "-i", str(hosts.inventory(count)), "-e", f"@{extra}", str(PEERS / book))

    return argv


def _ansible_env(hosts: Hosts) -> dict[str, str]:
    persist = "-o ControlMaster=auto -o ControlPersist=60s"
    return {
        **_at_home(hosts),
        "ANSIBLE_CONFIG": str(_empty(hosts.folder / "ansible.cfg")),
        "ANSIBLE_PIPELINING": "True",
        "ANSIBLE_FORKS": "20",
        "ANSIBLE_SSH_ARGS": f"-F {hosts.folder / 'ssh_config_curve25519'} {persist}",
        "ANSIBLE_NOCOLOR": "1",
    }


def _mitogen_env(hosts: Hosts) -> dict[str, str]:
    library = place(MITOGEN) / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    return {
        **_ansible_env(hosts),
        "ANSIBLE_STRATEGY": "mitogen_linear",
        "ANSIBLE_STRATEGY_PLUGINS": str(library / "ansible_mitogen/plugins/strategy"),
    }


def _empty(path: Path) -> Path:
    path.touch()
    return path


def _recap(cost: Cost) -> int:
    return len(re.findall(r": ok=[1-9]\d* .*unreachable=0 +failed=0", cost.out))


def _pyinfra(hosts: Hosts, count: int) -> Sequence[str]:
    data = {
        "ssh_user": hosts.user,
        "ssh_port": hosts.port,
        "ssh_key": str(hosts.key),
        "ssh_known_hosts_file": str(hosts.known_hosts),
        "ssh_strict_host_key_checking": "yes",
    }
    inventory = hosts.folder / f"pyinfra_{count}.py"
    inventory.write_text(f"fleet = {[(address, data) for address in hosts.addresses[:count]]!r}\n")
    program = str(place(PYINFRA) / "bin/pyinfra")
    return (program, "-y", "--parallel", "20", str(inventory), str(PEERS / "pyinfra_facts.py"))


def _pyinfra_served(cost: Cost) -> int:
    """It has no word for each host where it only asks: its exit code is for all, the server's log for each."""
    return sys.maxsize if cost.code == 0 else 0


CLUSTERSHELL, ANSIBLE, PYINFRA = "ClusterShell==1.10.1", "ansible-core==2.19.0", "pyinfra==3.10.0"
MITOGEN = f"{ANSIBLE} mitogen==0.3.54"
ASYNCSSH, PSSH = "asyncssh==2.24.1", "parallel-ssh==2.16.0.post1"
POOL, FLEETDRV = "paramiko pool", "fleetdrv drift"

TOOLS = (
    Tool(name=FLEETDRV, settings="as shipped", argv=_fleetdrv, served=looked_at, env=_at_home),
    Tool(name=POOL, settings="20 threads, curve25519, aes128-gcm", argv=_python("paramiko_pool.py"), served=_ok),
    Tool(
        name="asyncssh",
        settings="20 at a time, curve25519, aes128-gcm",
        argv=_python("asyncssh_pool.py", ASYNCSSH),
        served=_ok,
        requires=ASYNCSSH,
    ),
    Tool(name="Fabric ThreadingGroup", settings="batches of 50", argv=_python("fabric_group.py"), served=_ok),
    Tool(
        name="parallel-ssh",
        settings="pool of 20",
        argv=_python("parallel_ssh.py", PSSH),
        served=_ok,
        requires=PSSH,
        verifies=False,
    ),
    Tool(
        name="clush, curve25519",
        settings="fan-out 50",
        argv=_clush("ssh_config_curve25519"),
        served=_ends,
        requires=CLUSTERSHELL,
        env=_at_home,
    ),
    Tool(
        name="clush",
        settings="fan-out 50, OpenSSH's default key exchange",
        argv=_clush("ssh_config"),
        served=_ends,
        requires=CLUSTERSHELL,
        env=_at_home,
        most=200,
    ),
    Tool(
        name="pdsh, curve25519",
        settings="fan-out 50",
        argv=_pdsh,
        served=_ends,
        requires="apt:pdsh",
        env=lambda hosts: {"PDSH_SSH_ARGS_APPEND": f"-F {hosts.folder / 'ssh_config_curve25519'}"},
    ),
    Tool(
        name="pdsh",
        settings="fan-out 50, OpenSSH's default key exchange",
        argv=_pdsh,
        served=_ends,
        requires="apt:pdsh",
        env=lambda hosts: {"PDSH_SSH_ARGS_APPEND": f"-F {hosts.folder / 'ssh_config'}"},
        most=200,
    ),
    Tool(
        name="pyinfra, its facts",
        settings="20 at a time",
        argv=_pyinfra,
        served=_pyinfra_served,
        requires=PYINFRA,
        env=_at_home,
        own_facts=True,
    ),
    Tool(
        name="Ansible, raw script",
        settings="20 forks, pipelining, ControlPersist, curve25519",
        argv=_ansible("ansible_script.yaml"),
        served=_recap,
        requires=ANSIBLE,
        env=_ansible_env,
        most=100,
    ),
    Tool(
        name="Ansible, its modules",
        settings="20 forks, pipelining, ControlPersist, curve25519",
        argv=_ansible("ansible_facts.yaml"),
        served=_recap,
        requires=ANSIBLE,
        env=_ansible_env,
        most=100,
        own_facts=True,
    ),
    Tool(
        name="Ansible, its modules, Mitogen",
        settings="mitogen_linear, 20 forks, curve25519",
        argv=_ansible("ansible_facts.yaml", MITOGEN),
        served=_recap,
        requires=MITOGEN,
        env=_mitogen_env,
        most=100,
        own_facts=True,
    ),
)
