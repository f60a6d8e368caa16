"""The command line: one Invoke task per command, thin over commands.py, which is imported only when one runs.

`fleetdrv --help` and shell completion import nothing but Invoke and this file.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from invoke.collection import Collection
from invoke.context import Context
from invoke.exceptions import Exit, ParseError
from invoke.tasks import Task

from fleetdrv.errors import InputError

namespace = Collection()
"""Every command; `inv -c fleetdrv` and fabfiles of others can add it to their own tree."""

_SHARED: dict[str, tuple[str | bool, str]] = {
    "inventory": ("", "Ansible's YAML or INI, an executable, a folder, `host1,host2,`, or k8s:LABEL=VALUE"),
    "limit": ("", "only these hosts of the pool: gpu:&rack1:!gpu-7, n[001-128], globs, ~regex, @failed, @FILE"),
    "context": ("", "kubectl context"),
    "json": (False, "one JSON document on stdout"),
    "log_json": (False, "progress as JSON lines on stderr"),
    "no_cluster": (False, "hosts outside Kubernetes: no cordon, no drain, limits in this process only"),
    "quiet": (False, "only warnings and failures"),
    "yes": (False, "do not ask before touching anything"),
    "reason": ("", "why, for whoever looks at the pool"),
    "metrics_file": ("", "write Prometheus metrics to this .prom file, for node_exporter; one file for a pool"),
    "pushgateway": ("", "URL of a Prometheus Pushgateway that gets the same metrics"),
    "ask_sudo_password": (False, "ask once for the password with which sudo makes the log-in user root"),
    "sudo_password_file": ("", "file with that password, mode 0600; or a descriptor in FLEETDRV_SUDO_PASSWORD_FD"),
    "upgrade": (False, "take the newest packages that fit, also where what is installed fits"),
}
_SHORT = {"inventory": "i", "limit": "l", "yes": "y", "quiet": "q"}
_POSITIONAL = ("playbook", "pool", "run", "node", "action")
_SUDO = ("ask_sudo_password", "sudo_password_file")
_LOOK = ("inventory", "limit", "context", "json", "log_json", "no_cluster", "quiet", *_SUDO)
_METRICS = ("metrics_file", "pushgateway")
_CHANGE = (*_LOOK, *_METRICS, "yes", "reason", "upgrade")
_ORDER = ("context", "json", "reason")


class _Task(Task[Callable[..., None]]):
    """A task whose short flags are chosen, not derived."""

    def arg_opts(self, name: str, default: Any, taken_names: set[str]) -> dict[str, Any]:
        """Add the chosen short name."""
        self._told = getattr(self, "_told", {}) | self.help  # Invoke takes the words out as it reads them
        opts: dict[str, Any] = super().arg_opts(name, default, taken_names)
        opts.setdefault("help", self._told.get(name) or self._told.get(name.replace("_", "-")))
        if name in _SHORT:
            opts["names"] = [*opts["names"], _SHORT[name]]
        return opts


def _command(*shared: str, **helps: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Make a task of a body that takes Options and its own arguments, and returns its exit code."""

    def decorate(body: Callable[..., int]) -> Callable[..., int]:
        own = list(inspect.signature(body).parameters.values())[1:]

        def run(_: Context, /, **given: Any) -> None:
            from fleetdrv.crew import Options

            for name in _POSITIONAL:
                if str(given.get(name, "")).startswith("-"):  # Invoke takes an unknown flag for a positional
                    raise ParseError(f"No idea what '{given[name]}' is!")
            options = Options(**{name: given.pop(name) for name in shared})
            raise Exit(code=int(body(options, **given)))

        plain = inspect.Parameter.POSITIONAL_OR_KEYWORD
        parameters = [inspect.Parameter("_", inspect.Parameter.POSITIONAL_ONLY)]
        parameters += [p.replace(kind=plain) for p in own]
        parameters += [inspect.Parameter(name, plain, default=_SHARED[name][0]) for name in shared]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what Invoke reads
        run.__doc__, run.__name__ = body.__doc__, body.__name__
        namespace.add_task(
            _Task(
                run,
                name=body.__name__,
                positional=[p.name for p in own if p.name in _POSITIONAL],
                auto_shortflags=False,
                help={**{name: _SHARED[name][1] for name in shared}, **helps},
            )
        )
        return body

    return decorate


@_command(*_LOOK, "upgrade")
def plan(options: Any, playbook: str) -> int:
    """Look at every node, decide and print; writes nothing anywhere.

    Exit code 0: converged; 2: changes pending; 4: some node is unreachable or cannot be changed as it is;
    5: some node is blocked.
    """
    from fleetdrv import commands

    return commands.plan(options, playbook)


@_command(*_CHANGE, stop_after="`canary`: end when the canaries came through; without it the same run goes on")
def apply(options: Any, playbook: str, stop_after: str = "") -> int:
    """Bring the pool to the playbook's state, a few nodes at a time.

    The same command again finishes what an earlier one began, wherever it was cut off, and does nothing
    where nothing is to be done. First Ctrl-C: start no more nodes. Second: leave now; jobs run on.
    """
    from fleetdrv import commands

    return commands.apply(options, playbook, stop_after)


@_command(*_CHANGE)
def rollback(options: Any, playbook: str) -> int:
    """Bring the pool back to what it had before this playbook, by the same rollout and policy.

    Each node keeps two states of every driver; it goes back to the newest that is not the playbook's own, from
    its own disk: nothing is compiled or downloaded. A node that keeps no other state is named and left as it is.
    """
    from fleetdrv import commands

    return commands.rollback(options, playbook)


@_command(*_LOOK, *_METRICS)
def drift(options: Any, playbook: str) -> int:
    """Show who differs from the playbook, and in which layer of which driver; writes nothing anywhere.

    Exit code 0: nobody; 2: somebody; 4: some node is unreachable or cannot be read.
    """
    from fleetdrv import commands

    return commands.drift(options, playbook)


@_command(*_LOOK, *_METRICS, "reason")
def remediate(options: Any, playbook: str) -> int:
    """Mend what drifted, from cron: `apply` within the same limits that never asks and knows when to give up.

    A node that failed is tried again after a while, at most as often as the playbook's `remediate` says, until
    the playbook changes or somebody types `apply`. No output where all is well. With --quiet only what is new
    since the last time: a node that is given up is told of once, while the exit code stays 4 until it is mended.
    A pool that somebody else drives is left alone (exit code 0), a paused one too (5), and so is one that was
    rolled back from this very playbook (5).
    """
    from fleetdrv import commands

    return commands.remediate(options, playbook)


@_command("inventory", "limit", "context", "json", "no_cluster")
def inventory(options: Any) -> int:
    """Show which hosts there are, how each is reached, and which Node it is; touches no host.

    Also shown are hosts without a Node, and Nodes without a host. Exit code 3: it is not clear which host is which
    Node. Variables are not shown: passwords may be among them.
    """
    from fleetdrv import listing

    return listing.inventory(options)


@_command("context", "json")
def status(options: Any, pool: str) -> int:
    """Show, from any machine, which nodes are out of service, by which run, in which step.

    POOL may be left out: then every pool is shown. Reads the cluster only, no node.
    """
    from fleetdrv import orders

    return orders.status(options, pool)


@_command(*_ORDER)
def pause(options: Any, pool: str) -> int:
    """Ask every run of a pool, this one and later ones, to start no more nodes until `resume`."""
    from fleetdrv import orders

    return orders.pause(options, pool)


@_command(*_ORDER)
def resume(options: Any, pool: str) -> int:
    """Lift a pause."""
    from fleetdrv import orders

    return orders.resume(options, pool)


@_command(*_ORDER)
def abort(options: Any, pool: str) -> int:
    """End the run under way: it starts no more nodes, for good; nodes in hand are finished."""
    from fleetdrv import orders

    return orders.abort(options, pool)


@_command(*_ORDER)
def hold(options: Any, node: str) -> int:
    """Have fleetdrv leave a node alone, from any machine, until `release`; --reason is required.

    NODE is the name of the Node object. Every command passes it by. If a run has it out of service: untouched,
    it goes back as it was found; touched, the job under way ends, no other begins, and it goes back only if it
    then stands verified.
    """
    from fleetdrv import orders

    return orders.hold(options, node)


@_command("context", "json")
def release(options: Any, node: str) -> int:
    """Take the hold off a node that `hold` put there; its next turn is the next command's."""
    from fleetdrv import orders

    return orders.release(options, node)


@_command("inventory", "json", *_SUDO)
def logs(options: Any, run: str, node: str) -> int:
    """Print what a node's jobs said in a run, whole.

    RUN is a run's id, the beginning of one, or `last`. From the journal of this machine if it drove the run;
    else, with --inventory, from the node itself, which keeps its last 20 jobs.
    """
    from fleetdrv import joblogs

    return joblogs.logs(options, run, node)


@_command("inventory", *_SUDO)
def attach(options: Any, node: str) -> int:
    """Follow the job that runs on a node now, from any machine, until it ends.

    Reads only: it needs no lock, starts and writes nothing. Ctrl-C leaves the job running. Exit code 0: the job
    ended well, or none runs; 4: it failed.
    """
    from fleetdrv import joblogs

    return joblogs.attach(options, node)


@_command(
    *("inventory", "limit", "context", *_METRICS),
    print="systemd (units), cron (a line) or cronjob (Kubernetes objects)",
    every="minutes between two starts: 5, 10, 15, 20, 30 or 60",
    image="for cronjob: an image with fleetdrv and kubectl",
)
def schedule(options: Any, playbook: str, print: str = "", every: int = 15, image: str = "") -> int:
    """Print what starts `remediate` again and again; it installs nothing.

    Paths become absolute, and all are quoted as systemd, cron or Kubernetes read them.
    """
    from fleetdrv import scheduler

    return scheduler.show(options, playbook, print, every, image)


@_command("inventory", "limit", "json", "yes")
def trust(options: Any) -> int:
    """Show the host keys that known_hosts does not know yet, ask, and add them.

    Jump hosts on the way come first. A key that changed is an error with old and new fingerprint and the line it
    stands on, and is never replaced. Without a terminal and without --yes nothing is added (exit code 2).
    """
    from fleetdrv import trust

    return trust.trust(options)


@_command(
    "context",
    "json",
    nodes="how many virtual machines",
    release="Debian release, one for all or one for each: bookworm,trixie; with -generic for the larger kernel",
    folder="where the lab keeps everything",
)
def lab(options: Any, action: str, nodes: int = 2, release: str = "bookworm", folder: str = "") -> int:
    """Run the practice fleet: `lab up`, `lab status`, `lab down`.

    Virtual machines with their own kernel, sshd, apt and DKMS, and a real Kubernetes control plane. `up`
    builds what is missing once and keeps it in the cache; `down` leaves nothing running.
    """
    if action not in ("up", "down", "status"):
        raise InputError(f"lab {action}: say `lab up`, `lab status` or `lab down`")
    from fleetdrv.lab import cli

    return cli.main(
        action, nodes=nodes, release=release, folder=folder, context=options.context, as_json=options.json
    )
