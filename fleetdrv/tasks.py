"""The command line: one Invoke task per command, thin over the modules that do it, imported only when one runs."""

from __future__ import annotations

from typing import Any

from fleetdrv.errors import InputError
from fleetdrv.tasking import CHANGE, LOOK, METRICS, ORDER, SUDO, command, namespace

__all__ = ["namespace"]


@command(*LOOK, "upgrade")
def plan(options: Any, playbook: str) -> int:
    """Look at every node, decide and print; writes nothing anywhere.

    Exit code 0: converged; 2: changes pending; 4: some node is unreachable or cannot be changed as it is;
    5: some node is blocked.
    """
    from fleetdrv import commands

    return commands.plan(options, playbook)


@command(*CHANGE, stop_after="`canary`: end when the canaries came through; without it the same run goes on")
def apply(options: Any, playbook: str, stop_after: str = "") -> int:
    """Bring the pool to the playbook's state, a few nodes at a time.

    The same command again finishes what an earlier one began, wherever it was cut off, and does nothing
    where nothing is to be done. First Ctrl-C: start no more nodes. Second: leave now; jobs run on.
    """
    from fleetdrv import commands

    return commands.apply(options, playbook, stop_after)


@command(*CHANGE)
def rollback(options: Any, playbook: str) -> int:
    """Bring the pool back to what it had before this playbook, by the same rollout and policy.

    Each node keeps two states of every driver; it goes back to the newest that is not the playbook's own, from
    its own disk: nothing is compiled or downloaded. A node that keeps no other state is named and left as it is.
    """
    from fleetdrv import commands

    return commands.rollback(options, playbook)


@command(
    *(option for option in LOOK if option != "limit"), "yes", "reason",
    playbook="the wanted state; without it, what the node itself keeps as verified last",
)
def repair(options: Any, node: str, playbook: str = "") -> int:
    """Mend one node now, also NotReady or out of service.

    NODE is a host of the inventory or the name of its Node. Interrupted dpkg, lost headers, a broken or missing
    build, other code loaded than on disk, an old initramfs, a lost hold, and what a killed run left are mended
    by the same rules as ever; canaries, windows, budgets and a pause do not hold it up. A cordon of somebody
    else's stays; a node that is not Ready goes back once it is.
    """
    from fleetdrv import repair

    return repair.repair(options, node, playbook)


@command(*LOOK, *METRICS)
def drift(options: Any, playbook: str) -> int:
    """Show who differs from the playbook, and in which layer of which driver; writes nothing anywhere.

    Exit code 0: nobody; 2: somebody; 4: some node is unreachable or cannot be read.
    """
    from fleetdrv import commands

    return commands.drift(options, playbook)


@command(*LOOK, *METRICS, "reason")
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


@command("inventory", "limit", "context", "json", "no_cluster")
def inventory(options: Any) -> int:
    """Show which hosts there are, how each is reached, and which Node it is; touches no host.

    Also shown are hosts without a Node, and Nodes without a host. Exit code 3: it is not clear which host is which
    Node. Variables are not shown: passwords may be among them.
    """
    from fleetdrv import listing

    return listing.inventory(options)


@command("context", "json")
def status(options: Any, pool: str) -> int:
    """Show, from any machine, which nodes are out of service, by which run, in which step, and what they wait for.

    Also which node and which rule a run that stopped was held up by, and the command to type next. POOL may be
    left out: then every pool is shown. Reads the cluster only, no node.
    """
    from fleetdrv import status

    return status.status(options, pool)


@command(*ORDER)
def pause(options: Any, pool: str) -> int:
    """Ask every run of a pool, this one and later ones, to start no more nodes until `resume`."""
    from fleetdrv import orders

    return orders.pause(options, pool)


@command(*ORDER)
def resume(options: Any, pool: str) -> int:
    """Lift a pause."""
    from fleetdrv import orders

    return orders.resume(options, pool)


@command(*ORDER)
def abort(options: Any, pool: str) -> int:
    """End the run under way: it starts no more nodes, for good; nodes in hand are finished."""
    from fleetdrv import orders

    return orders.abort(options, pool)


@command(*ORDER)
def hold(options: Any, node: str) -> int:
    """Have fleetdrv leave a node alone, from any machine, until `release`; --reason is required.

    NODE is the name of the Node object. Every command passes it by. If a run has it out of service: untouched,
    it goes back as it was found; touched, the job under way ends, no other begins, and it goes back only if it
    then stands verified.
    """
    from fleetdrv import orders

    return orders.hold(options, node)


@command("context", "json")
def release(options: Any, node: str) -> int:
    """Take the hold off a node that `hold` put there; its next turn is the next command's."""
    from fleetdrv import orders

    return orders.release(options, node)


@command("inventory", "context", "json", *SUDO)
def logs(options: Any, run: str, node: str) -> int:
    """Print what a node's jobs said in a run, whole.

    RUN is a run's id, the beginning of one, or `last`. From the journal of this machine if it drove the run;
    else, with --inventory, from the node itself, which keeps its last 20 jobs.
    """
    from fleetdrv import joblogs

    return joblogs.logs(options, run, node)


@command(
    "json",
    output="the page's file; without it, beside the journal",
    watch="write it anew while the run goes on; it reads itself anew, and so does an open browser",
)
def report(options: Any, run: str, output: str = "", watch: bool = False) -> int:
    """Write a run's page, one HTML file for people who were not there, and print where it is.

    RUN is a run's id, the beginning of one, or `last`, and was driven from this machine: the page is made from its
    journal. It shows every node's phases, seconds out of service, failures with evidence and the next command,
    and versions before and after; it asks no network for anything. --json prints the same as a document.
    """
    from fleetdrv import reporting

    return reporting.write(options, run, output, watch)


@command(
    *("inventory", "context", "json", "no_cluster", *SUDO),
    output="where the bundle goes, a .tar.gz that is not there yet; else the state folder of this machine",
)
def diagnose(options: Any, node: str, output: str = "") -> int:
    """Say what is wrong with a node, the likeliest cause first, and put the evidence into one file.

    Nothing is changed. Logs of jobs, apt and dkms, make.log, the kernel's log, disks, clock, Secure Boot, modules
    and the Node object are looked at. Passwords, tokens and keys are taken out of the file, which only you may
    read. Exit code 0: nothing was found wrong; 4: something was, or the node cannot be reached.
    """
    from fleetdrv import diagnose

    return diagnose.diagnose(options, node, output)


@command("inventory", "context", *SUDO)
def attach(options: Any, node: str) -> int:
    """Follow the job that runs on a node now, from any machine, until it ends.

    Reads only: it needs no lock, starts and writes nothing. Ctrl-C leaves the job running. Exit code 0: the job
    ended well, or none runs; 4: it failed.
    """
    from fleetdrv import joblogs

    return joblogs.attach(options, node)


@command(
    *("inventory", "limit", "context", "sudo_password_file", *METRICS),
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


@command("inventory", "limit", "context", "json", "yes")
def trust(options: Any) -> int:
    """Show the host keys that known_hosts does not know yet, ask, and add them.

    Jump hosts on the way come first. A key that changed is an error with old and new fingerprint and the line it
    stands on, and is never replaced. Without a terminal and without --yes nothing is added (exit code 2).
    """
    from fleetdrv import trust

    return trust.trust(options)


@command(
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
