"""`fleetdrv schedule --print`: find out what is to be started, and print it for systemd, cron or Kubernetes."""

from __future__ import annotations

import getpass
import os
import shlex
import shutil
import sys
from pathlib import Path

import yaml

from fleetdrv import exporter, inventory, load, schedule
from fleetdrv.errors import ExitCode, InputError
from fleetdrv.load import Loaded
from fleetdrv.options import Options
from fleetdrv.schedule import FILES, HOME, NAMESPACE, Pod, Schedule

_PATH = ("/usr/local/bin", "/usr/bin", "/bin")
_CONFIG_MAP_BYTES = 1_000_000  # the API's limit is 1 MiB for all of an object
_FORMS = ("systemd", "cron", "cronjob")


def show(options: Options, playbook: str, form: str, every: int, image: str) -> ExitCode:
    """Print a schedule; nothing is installed. Raises InputError."""
    if form not in _FORMS:
        raise InputError(f"--print {form}".rstrip() + f": say one of {', '.join(_FORMS)}")
    if every not in schedule.PERIODS:
        raise InputError(f"--every {every}: minutes, one of {', '.join(map(str, schedule.PERIODS))}")
    if bool(image) != (form == "cronjob"):
        raise InputError("--image: an image with fleetdrv and kubectl; goes with --print cronjob, and only so")
    exporter.check(options)
    loaded = load.playbook(Path(playbook))
    hosts = inventory.read(options.inventory).group(loaded.playbook.hosts)
    if form == "cronjob":
        print(_cronjob(options, loaded, tuple(host.node_name for host in hosts), every, image), end="")
        return ExitCode.DONE
    due = _here(options, loaded, every)
    schedule.demand_words(due)
    print(_systemd(due) if form == "systemd" else f"# crontab -e, as {due.user}\n{schedule.cron(due)}")
    return ExitCode.DONE


def _here(options: Options, loaded: Loaded, every: int) -> Schedule:
    """Say what this user would start on this machine; a schedule has no $PATH and no working folder of his."""
    program = Path(sys.argv[0]).absolute()
    kubectl = shutil.which("kubectl")
    path = (str(Path(kubectl).absolute().parent), *_PATH) if kubectl else _PATH
    environment = {"PATH": ":".join(dict.fromkeys(path))}
    if os.environ.get("KUBECONFIG"):
        files = os.environ["KUBECONFIG"].split(os.pathsep)
        environment["KUBECONFIG"] = os.pathsep.join(str(Path(name).absolute()) for name in files)
    metrics = (str(Path(options.metrics_file).absolute()),) if options.metrics_file else ()
    words = _remediate(options, str(loaded.path.absolute()), str(Path(options.inventory).absolute()))
    return Schedule(
        pool=loaded.playbook.pool_name,
        every_minutes=every,
        argv=(str(program), *words, *(word for name in metrics for word in ("--metrics-file", name))),
        environment=environment,
        user=getpass.getuser(),
        writes=tuple(str(Path(name).parent) for name in metrics),
    )


def _remediate(options: Options, playbook: str, inventory: str) -> tuple[str, ...]:
    words = ["remediate", playbook, "--inventory", inventory, "--quiet"]
    for name, value in (
        ("--limit", options.limit),
        ("--context", options.context),
        ("--pushgateway", options.pushgateway),
    ):
        words += [name, value] if value else []
    return tuple(words)


def _systemd(due: Schedule) -> str:
    units = schedule.systemd(due)
    *_, timer = units
    head = f"# Each part into its file, then: systemctl daemon-reload && systemctl enable --now {timer}\n"
    return head + "\n".join(f"# ---- /etc/systemd/system/{name}\n{text}" for name, text in units.items()).rstrip()


def _cronjob(options: Options, loaded: Loaded, nodes: tuple[str, ...], every: int, image: str) -> str:
    if options.metrics_file or options.context:
        raise InputError("--metrics-file, --context: mean nothing in a pod; metrics leave it by --pushgateway")
    pool, files = loaded.playbook.pool_name, _beside(loaded)
    due = Schedule(
        pool=pool,
        every_minutes=every,
        argv=("fleetdrv", *_remediate(options, f"{FILES}/playbook.yaml", f"{FILES}/inventory.yaml")),
        environment={"XDG_STATE_HOME": f"{HOME}/state", "XDG_CACHE_HOME": f"{HOME}/cache"},
    )
    schedule.demand_words(due)
    sources = {
        "playbook.yaml": loaded.path,
        "inventory.yaml": Path(options.inventory),
        **{f"file-{number}": loaded.path.parent / name for number, name in enumerate(files)},
    }
    size = sum(path.stat().st_size for path in sources.values())
    if size > _CONFIG_MAP_BYTES:
        raise InputError(f"playbook, inventory and the files they name have {size} bytes; a ConfigMap holds 1 MiB")
    paths = dict(zip(sources, ("playbook.yaml", "inventory.yaml", *files), strict=True))
    objects = schedule.cronjob(due, Pod(image=image, nodes=nodes, files=paths))
    given = " ".join(shlex.quote(f"--from-file={key}={path}") for key, path in sources.items())
    head = _HEAD.format(name=schedule.cronjob_name(pool), given=given, space=NAMESPACE, home=HOME)
    return head + yaml.dump_all(objects, Dumper=_Plain, sort_keys=False, width=110)


def _beside(loaded: Loaded) -> tuple[str, ...]:
    """Return the files that the playbook names, by their paths beside it. Raises InputError for any elsewhere."""
    named = [driver.dkms.source for driver in loaded.playbook.drivers if driver.dkms is not None]
    repositories = [driver.apt.repository for driver in loaded.playbook.drivers if driver.apt is not None]
    named += [repository.key for repository in repositories if repository is not None]
    for name in named:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise InputError(f"{loaded.path}: {name}: a pod has only what lies below the playbook's folder")
    return tuple(dict.fromkeys(named))


class _Plain(yaml.SafeDumper):
    """Writes what occurs twice twice: people read this."""

    def ignore_aliases(self, data: object) -> bool:
        """All of them."""
        del data
        return True


_HEAD = """\
# Once: kubectl apply -f docs/clusterrole.yaml
# With each change of playbook or inventory (and the namespace {space} must be there):
#   kubectl create configmap {name} --namespace {space} --dry-run=client -o yaml {given} | kubectl apply -f -
# The SSH key and the known host keys, never in a file of this kind:
#   kubectl create secret generic {name} --namespace {space} --from-file=id_ed25519=KEY \\
#     --from-file=known_hosts=FILE
# The inventory finds them as {home}/.ssh/id_ed25519 and known_hosts, which is where it looks by itself.
# A cluster before Kubernetes 1.21 says batch/v1beta1 where this says batch/v1.
"""
