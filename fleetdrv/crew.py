"""Everything that one command works with, made in the right order and put away again.

Files first: whatever is wrong in them is told before a socket is opened or a child started. Then the
cluster, then SSH.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

from fleetdrv import completing, files, names, ownership
from fleetdrv import lease as leases
from fleetdrv.announce import AnnouncedNode, Herald, service_of
from fleetdrv.attempts import Counting
from fleetdrv.buildcache import BuildCache, default_folder
from fleetdrv.buildonce import Builds
from fleetdrv.calling import Caller, NodeHooks
from fleetdrv.cluster import Cluster
from fleetdrv.drive import NodeDriver
from fleetdrv.effects import Effects
from fleetdrv.errors import ClusterError, FleetdrvError, NodeRefused, Refused, Stopped
from fleetdrv.events import Event, Level, Say
from fleetdrv.inventory import Inventory
from fleetdrv.line import Lines
from fleetdrv.load import Loaded
from fleetdrv.model import Host
from fleetdrv.options import Options, inventory_words, plan_command, same_again, typed
from fleetdrv.ownership import Kind, Object
from fleetdrv.passwords import sudo_password
from fleetdrv.reach import open_cluster
from fleetdrv.records import RunRecord
from fleetdrv.selection import Selection
from fleetdrv.slots import Domain, Out, Pool
from fleetdrv.standing import is_out
from fleetdrv.turn import Owed
from fleetdrv.versions import Versions

_UPGRADE = "+upgrade"


@dataclass(slots=True, kw_only=True)
class Crew:
    """A playbook, its pool, and a driver for each selected node."""

    loaded: Loaded
    pool_hosts: tuple[Host, ...]
    drivers: Mapping[str, NodeDriver]
    cluster: Cluster | None
    effects: Effects
    say: Say
    hooks: Caller = field(default_factory=Caller)
    versions: Versions = field(default_factory=Versions)
    away: Callable[[], str] = str  # says which way to nodes is gone for now
    again: tuple[str, str] = ("", "")
    """The command that goes on with the run, and the one that repairs NODE."""
    aborted: str = ""
    """Id of the run on record, if it was aborted when `record` read it: its controller may have died before it
    could close it, and whoever types the command afterwards wants a new one."""

    @property
    def digest(self) -> str:
        """Digest of what a run is to reach; to reach the newest versions is another aim."""
        return self.loaded.digest + (_UPGRADE if self.versions.upgrade else "")

    def goes_on(self, record: RunRecord | None) -> bool:
        """Tell whether a run that is recorded has the same aim and did not end, nor was aborted."""
        if record is None or record.finished or record.id == self.aborted:
            return False
        return record.digest == self.digest

    def recall(self, record: RunRecord | None) -> None:
        """Take over the versions that a run of this playbook chose; an upgrade goes on only with its own."""
        if record is None or record.digest.removesuffix(_UPGRADE) != self.loaded.playbook.digest:
            return
        if not self.versions.upgrade or self.goes_on(record):
            self.versions.pins = {name: pin for name, pin in record.versions.items() if "/" in name}

    @property
    def pool_name(self) -> str:
        """Name of the pool."""
        return self.loaded.playbook.pool_name

    def record(self) -> RunRecord | None:
        """Return the pool's run record, if there is one."""
        if self.cluster is None:
            return None
        lease = self.cluster.lease(names.lease_name(self.pool_name))
        order = leases.orders(lease).aborted
        self.aborted = order.run if order else ""
        return leases.run_record(lease)

    def survey(self, run: str) -> dict[str, Owed | FleetdrvError]:
        """Look at all selected nodes at once.

        Raises Refused when sudo's password was wrong too often, and when a host is not the Node it claims to be:
        addresses that were swapped or copied say nothing good of any other host. A host without a Node, or whose
        Node proves nothing, is refused by itself: one rotten Node must not keep a thousand others from being
        mended. Where all are so, the run is refused.
        """
        width = min(64, max(1, len(self.drivers)))
        workers = ThreadPoolExecutor(width, thread_name_prefix="survey")
        try:
            looks = {name: workers.submit(driver.look, run) for name, driver in self.drivers.items()}
            for future in looks.values():  # not wait(): a Ctrl-C in it may leave futures locked for ever
                future.exception()
        finally:
            workers.shutdown(wait=False, cancel_futures=True)  # Ctrl-C does not wait for whom nobody asked yet
        seen: dict[str, Owed | FleetdrvError] = {}
        for name, future in looks.items():
            try:
                seen[name] = future.result()
            except FleetdrvError as error:
                seen[name] = error
        stopped = next((came for came in seen.values() if isinstance(came, Stopped)), None)
        if stopped:
            raise Refused(f"{stopped}\nNothing was touched.")
        refused = [came for came in seen.values() if isinstance(came, Refused)]
        alone = all(isinstance(came, NodeRefused) for came in refused)
        if refused and (not alone or len(refused) == len(seen)):
            raise Refused("\n".join(map(str, refused)))
        looked_at = [name for name, came in seen.items() if isinstance(came, Owed)]
        return {**seen, **self._resolved(run, looked_at)}

    def _resolved(self, run: str, names: Iterable[str]) -> dict[str, Owed]:
        """Let the lists of all nodes say what version patterns mean, and judge each node by that."""
        views = {name: view for name in names if (view := self.drivers[name].view) is not None}
        self.versions.learn(self.loaded.playbook, [view.facts for view in views.values()])
        if all(driver.apt is None for driver in self.loaded.playbook.drivers):
            return {}
        return {name: self.drivers[name].judge_again(run) for name in views}

    def pool(self) -> tuple[Pool, Mapping[str, Out]]:
        """Read how the pool stands.

        A host without a Node is no part of what the pool serves with: it counts neither as a node of the pool
        nor as one that is out.
        """
        if self.cluster is None:
            out = {name: driver.service.standing().out for name, driver in self.drivers.items()}
            outs = {name: Out(out=is_out, ours=is_out) for name, is_out in out.items()}
            size = len(self.pool_hosts)  # nobody labels them: they are one failure domain
            return Pool(size=size, domains={"": Domain(size=size)}), outs
        per = self.loaded.playbook.rollout.max_unavailable_per
        nodes = {ownership.name(node): node for node in self.cluster.nodes()}
        stands = {n: _out(nodes[n], self.pool_name, per.label if per else "") for n in self.members & nodes.keys()}
        driven = {driver.service.node: name for name, driver in self.drivers.items()}
        others = [stand for node, stand in stands.items() if stand.out and node not in driven]
        ours, foreign = (Counter(s.domain for s in others if s.ours is mine) for mine in (True, False))
        sizes = Counter(stand.domain for stand in stands.values() if per)
        domains = {d: Domain(size=n, foreign_out=foreign[d], ours_out=ours[d]) for d, n in sizes.items()}
        outs = {name: stands.get(node, Out(out=False, ours=False)) for node, name in driven.items()}
        away = {"foreign": foreign.total(), "ours": ours.total()}
        return Pool(size=len(stands), foreign_out=away["foreign"], ours_out=away["ours"], domains=domains), outs

    def left_out(self) -> list[str]:
        """Name the nodes that are out of service by fleetdrv's hand: the pool's, and those of its earlier runs."""
        if self.cluster is None:
            return [name for name, driver in self.drivers.items() if driver.service.standing().out]
        marked, members = self.cluster.nodes(names.RUN_LABEL), self.members
        left = [node for node in marked if ownership.name(node) in members or _out(node, self.pool_name, "").ours]
        return sorted(map(ownership.name, left))

    @property
    def members(self) -> set[str]:
        """Names of the Nodes that the inventory has for the pool."""
        return {host.node_name for host in self.pool_hosts}


@contextmanager
def assemble(
    options: Options,
    playbook: str,
    say: Say,
    *,
    cron: bool = False,
    back: bool = False,
    look: bool = False,
    repair: type[AnnouncedNode] | None = None,
    read: tuple[Loaded, Inventory] | None = None,
) -> Iterator[Crew]:
    """Read the files, reach the cluster, get SSH ready. Raises InputError or Refused.

    `cron`: nodes are tried as often as `remediate` allows, not because a human wants it now. `back`: the playbook
    is to be undone. `look`: nodes are looked at, and no more. `repair`: remedies come before the plan, and Nodes
    are of this kind. `read`: what files said.
    """
    read = read or files.read(playbook, options.inventory, lambda text: say(_event("inventory", text)))
    loaded, everything = read
    loaded = loaded.for_one_node() if repair else replace(loaded, back=back)
    book, last = loaded.playbook, inventory_words(options.inventory)[-1]
    completing.remember(last, everything.hosts.values(), book.pool_name)
    selection = Selection(
        everything=everything,
        group=book.hosts,
        limit=options.limit,
        pool=book.pool_name,
        no_cluster=options.no_cluster,
        say=say,
    )
    selected = selection.now()
    if selected:
        files.demand_ways(selected[1], str(everything.path))
    effects, versions, hooks = Effects(), Versions(upgrade=options.upgrade), _caller(loaded, say)
    counting = Counting(digest=book.digest, policy=book.remediate, afresh=not cron)
    password = sudo_password(ask=options.ask_sudo_password, file=options.sudo_password_file)
    with ExitStack() as stack:
        cluster = None
        if options.no_cluster:
            text = "no cluster: nothing is cordoned or drained; limits hold within this process only"
            say(_event("cluster", text, Level.WARNING))
        else:
            cluster = open_cluster(stack, options, effects)
            _same_cluster(cluster, loaded)
            if selected is None:
                selected = selection.ask(cluster)
                files.demand_ways(selected[1], str(everything.path))
        assert selected is not None  # without a cluster `now` tells or refuses
        pool_hosts, chosen = selected
        herald = Herald(cluster, say) if cluster else None
        lines = stack.enter_context(Lines(effects, password, lambda text: say(_event("ssh", text))))
        cache = BuildCache(folder=default_folder(), note=lambda text: say(_event("builds", text, Level.WARNING)))
        drivers, shared = {}, Builds(cache=cache)
        for host in chosen:
            service = service_of(host, herald, loaded, counting, options.reason, repair or AnnouncedNode)
            drivers[host.name] = NodeDriver(
                name=host.name,
                line=lines.to(host, once=look),
                service=service,
                loaded=loaded,
                say=say,
                counting=counting,
                hooks=NodeHooks(caller=hooks, host=host.name, node=host.node_name),
                versions=versions,
                builds=shared,
                effects=effects,
                plan_again=typed(options, "repair", host.name, *(("--playbook", playbook) if playbook else ()))
                if repair
                else plan_command(options, playbook, host.name, "rollback" if back else "plan"),
            )
        yield Crew(
            loaded=loaded,
            pool_hosts=pool_hosts,
            drivers=drivers,
            cluster=cluster,
            effects=effects,
            say=say,
            versions=versions,
            hooks=hooks,
            away=lines.away,
            again=(
                same_again(options, "rollback" if back else "apply", playbook),
                typed(replace(options, upgrade=False), "repair", "NODE", "--playbook", playbook),
            ),
        )


def _caller(loaded: Loaded, say: Say) -> Caller:
    about = {"pool": loaded.playbook.pool_name, "playbook": loaded.playbook.name}
    return Caller(hooks=loaded.playbook.hooks, folder=loaded.path.absolute().parent, about=about, say=say)




def _same_cluster(cluster: Cluster, loaded: Loaded) -> None:
    wanted = loaded.playbook.cluster
    try:
        found = cluster.uid()
    except ClusterError as error:
        raise Refused(f"the cluster does not say which it is: {error}") from error
    if wanted and found != wanted:
        raise Refused(f"this is cluster {found}, the playbook is for {wanted}; choose another --context")


def _out(node: Object, pool: str, label: str) -> Out:
    try:
        owner = ownership.state(node)
        ours = owner.kind is Kind.OURS and owner.record is not None and owner.record.pool == pool
    except NodeRefused:  # a damaged record: not known to be ours
        ours = False
    domain = str((node.get("metadata", {}).get("labels") or {}).get(label, ""))
    return Out(out=is_out(node), ours=ours, domain=domain)


def _event(phase: str, text: str, level: Level = Level.PROGRESS) -> Event:
    return Event(node="", phase=phase, text=text, level=level)
