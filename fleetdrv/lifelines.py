"""What a node hangs on while it is changed: the way in, its disks. Pure.

Code under the interface that carries the SSH session, or under a disk of the system, the kubelet or the
containers, cannot be exchanged on a node that runs: the job would cut off the hand that mends, or its own floor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fleetdrv.model import NodeFacts


def lifelines(modules: Iterable[str], facts: NodeFacts) -> Iterator[str]:
    """Say of each module that the node hangs on what that is, and what would help."""
    for module in modules:
        what = tuple(dict.fromkeys(said for user in users(module, facts) for said in facts.hanging_on(user)))
        if what:
            held = sorted(user for user in users(module, facts) if user != module and facts.hanging_on(user))
            by = f" by way of {', '.join(held)}" if held and not facts.hanging_on(module) else ""
            yield (
                f"{module} cannot leave the kernel of a node that runs: {' and '.join(what)} depends on it{by}; "
                f"only a reboot into the new driver changes that, and this version reboots no node"
            )


def stay(modules: Iterable[str], facts: NodeFacts) -> frozenset[str]:
    """Return the modules that no job may take out of the kernel, whatever went wrong before."""
    return frozenset(m for m in modules if any(facts.hanging_on(user) for user in users(m, facts)))


def unload_order(modules: Iterable[str], facts: NodeFacts) -> tuple[str, ...]:
    """Return modules and all that depend on them, each after those that depend on it."""
    order: dict[str, None] = {}
    for module in modules:
        loaded = facts.loaded.get(module)
        order.update(dict.fromkeys(unload_order(sorted(loaded.holders) if loaded else (), facts)))
        order.setdefault(module)
    return tuple(order)


def users(module: str, facts: NodeFacts) -> tuple[str, ...]:
    """Return a module and all loaded ones that depend on it, however far up, nearest first."""
    found = [module]
    for name in found:
        loaded = facts.loaded.get(name)
        found += sorted(loaded.holders - set(found)) if loaded else []
    return tuple(found)
