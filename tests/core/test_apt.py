"""Packaged drivers: what a plan promises, on a machine that obeys it; and what a version pattern means."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetdrv.layers import Layer
from fleetdrv.model import Candidate, Kernels, NodeFacts, Package, Refreshed
from fleetdrv.packages import compare_versions, matches
from fleetdrv.plan import Disruption, NodePlan, Outcome, plan
from fleetdrv.playbook import Driver, Playbook
from fleetdrv.resolve import exact, resolved, shown
from fleetdrv.sources import AptSource, Repository
from fleetdrv.steps import LISTS_SECONDS, keep, restore, stage_key
from fleetdrv.versions import Versions
from tests.core.factories import KERNEL, NEXT_KERNEL, a_playbook, sha256, some_facts
from tests.core.machine import Deb, Machine, Running, demand_usage, payload
from tests.core.strategies import pick, some

VERSIONS = ("1.0", "1.1", "1.2", "2.0")
PATTERNS = ("1.*", "1.1", "*", "1.0", "3.*")
KERNELS = Kernels(running=KERNEL, newest=NEXT_KERNEL, default=NEXT_KERNEL)
REPOSITORY = Repository(
    uri="https://example.test/debian", suites=("stable",), components=("main",), key="k.asc", fingerprint="A" * 40
)
OWN_REPOSITORY = sha256(f"{REPOSITORY.text()}Signed-By: /etc/apt/keyrings/fleetdrv-{REPOSITORY.fingerprint}.gpg\n")
DAY = 86400


def a_packaged(pattern: str = "1.*", **more: Any) -> Driver:
    """Return a driver that one package with DKMS sources brings."""
    apt = {"packages": {"toy-dkms": pattern}, **more}
    return Driver(name="toy", apt=AptSource(**apt), modules=("toy",))


def a_machine(**more: Any) -> Machine:
    """Return a node with nothing of the driver, and a mirror with all versions that its lists know."""
    offers = frozenset(("toy-dkms", version) for version in VERSIONS)
    usual = {"mirror": offers, "lists": offers, "lists_seconds": 60, "has": frozenset({"toy"})}
    return Machine(kernels=KERNELS, headers={KERNEL, NEXT_KERNEL}, **{**usual, **more})


@dataclass(slots=True)
class Turn:
    """One node's way to a playbook's state: look, and do what is due, as drive.py does it."""

    playbook: Playbook
    machine: Machine
    versions: Versions

    def look(self) -> tuple[Playbook, NodePlan]:
        facts = self.machine.facts(self.playbook)
        wanted = self.versions.exact(self.playbook, facts)
        return wanted, plan(wanted, facts, upgrade=self.versions.upgrade)

    def rounds(self) -> Iterator[tuple[Playbook, NodePlan]]:
        """Yield each look that owes something, before it is paid; ends when nothing is due."""
        for _ in range(6):
            wanted, due = self.look()
            yield wanted, due
            if due.outcome is not Outcome.CHANGEABLE:
                return
            if due.stage:
                for step in due.stage:
                    self.machine.run(step, payload(wanted))
            else:
                self.machine.apply(due, wanted)
        raise AssertionError("a turn that does not end")


def brought(machine: Machine, playbook: Playbook, **more: Any) -> tuple[Playbook, NodePlan]:
    """Drive a node to its end and return the last look."""
    *_, last = Turn(playbook, machine, Versions(open=True, **more)).rounds()
    return last


@st.composite
def nodes(draw: Callable[[st.SearchStrategy[Any]], Any]) -> Machine:
    """Draw a node: some version or none, held or not, lists new, old or missing, kernels with builds or not."""
    have = pick(draw, (None, *VERSIONS))
    offers = frozenset(("toy-dkms", version) for version in some(draw, VERSIONS))
    known = pick(draw, (offers, frozenset(), frozenset({("toy-dkms", "1.0")})))
    age = pick(draw, (None, 60, LISTS_SECONDS, LISTS_SECONDS + 1))
    if age is not None and age <= LISTS_SECONDS:
        known = offers  # lists that are new say what the mirror has
    machine = a_machine(mirror=offers, lists=known if age is not None else frozenset(), lists_seconds=age)
    if have:
        machine.debs["toy-dkms"] = Deb(have, pick(draw, (False, True)))
        machine.held_by_us |= {"toy-dkms"} if machine.debs["toy-dkms"].held else set()
        for kernel in some(draw, KERNELS.bootable):
            machine.dkms["toy", have, kernel] = ("installed", "")
            machine.files["toy", kernel] = machine.identity("toy", have, kernel, "postinst")
        if pick(draw, (False, True)):
            code = machine.identity("toy", pick(draw, (have, "0.9")), KERNEL, "postinst")
            machine.loaded["toy"] = Running(code, {})
    return machine


@given(nodes(), st.sampled_from(PATTERNS), st.booleans(), st.booleans(), st.booleans())
def test_a_node_is_brought_to_the_newest_that_fits_or_told_why_not(
    machine: Machine, pattern: str, hold: bool, own: bool, upgrade: bool
) -> None:
    have = machine.debs["toy-dkms"].version if "toy-dkms" in machine.debs else ""
    built = all(("toy", have, kernel) in machine.dkms for kernel in KERNELS.bootable)
    playbook = a_playbook(a_packaged(pattern, hold=hold, repository=REPOSITORY if own else None))
    fitting = [version for _, version in machine.mirror if matches(pattern, version)]
    newest = max(fitting, key=VERSIONS.index, default="")
    if have and matches(pattern, have) and not (upgrade and newest and compare_versions(newest, have) > 0):
        target = have if built or have in fitting else ""
    else:
        target = newest
    seen = list(Turn(playbook, machine, Versions(upgrade=upgrade, open=True)).rounds())
    _, last = seen[-1]
    assert last.outcome is (Outcome.CONVERGED if target else Outcome.INCOMPATIBLE), last
    if not target:
        assert "toy-dkms" in last.reason
        assert not any(step.program != "apt_refresh.sh" for step in machine.ran), "nothing but lists was asked for"
        return
    assert machine.debs["toy-dkms"].version == target
    assert machine.debs["toy-dkms"].held or not hold
    assert all(machine.dkms["toy", target, kernel] == ("installed", "") for kernel in KERNELS.bootable)
    if machine.ran and machine.staged == {}:
        assert "toy" not in machine.good or machine.good["toy"].pins == (f"toy-dkms={target}",)
    assert Turn(playbook, machine, Versions(open=True)).look()[1].outcome is Outcome.CONVERGED


@given(nodes(), st.sampled_from(PATTERNS), st.booleans())
def test_what_is_owed_is_whole_and_what_is_loaded_goes_first(machine: Machine, pattern: str, own: bool) -> None:
    playbook = a_playbook(a_packaged(pattern, repository=REPOSITORY if own else None))
    for wanted, due in Turn(playbook, machine, Versions(open=True)).rounds():
        for step in (*due.stage, *due.outage, *due.after):
            demand_usage(step)
        programs = [step.program for step in due.outage]
        if not due.stage and "apt_install.sh" in programs:
            (apt,) = (driver.apt for driver in wanted.drivers)
            assert apt is not None
            assert "*" not in apt.packages["toy-dkms"], "never a pattern, always a version"
            assert programs[0] == "apt_ready.sh"
            if "unload.sh" in programs:
                assert programs.index("unload.sh") < programs.index("apt_install.sh") < programs.index("load.sh")
            if Layer.PACKAGE in {difference.layer for difference in due.differences}:
                assert ("unload.sh" in programs) is ("toy" in machine.loaded)
                assert (due.disruption is Disruption.RELOAD) is ("toy" in machine.loaded)


def test_only_a_hold_that_is_missing_costs_no_drain_and_no_download() -> None:
    machine = a_machine()
    brought(machine, a_playbook(a_packaged("1.1", hold=False)))
    machine.ran.clear()
    due = plan(a_playbook(a_packaged("1.1")), machine.facts(a_playbook(a_packaged("1.1"))))
    assert [difference.layer for difference in due.differences] == [Layer.HOLD]
    assert (due.disruption, due.stage) == (Disruption.NONE, ())
    assert [step.program for step in due.outage] == ["apt_ready.sh", "apt_install.sh"]


@pytest.mark.parametrize("ours", [False, True])
def test_our_own_hold_goes_where_the_playbook_wants_none(ours: bool) -> None:
    machine = a_machine()
    brought(machine, a_playbook(a_packaged("1.1", hold=ours)))
    machine.debs["toy-dkms"] = replace(machine.debs["toy-dkms"], held=True)
    _, last = brought(machine, a_playbook(a_packaged("1.1", hold=False)))
    assert last.outcome is Outcome.CONVERGED
    assert machine.debs["toy-dkms"].held is not ours


@pytest.mark.parametrize("ours", [False, True])
def test_a_hold_of_somebody_else_is_named_while_the_node_serves(ours: bool) -> None:
    machine = a_machine(debs={"toy-dkms": Deb("1.0", held=True)}, held_by_us={"toy-dkms"} if ours else set())
    playbook = a_playbook(a_packaged("1.1"))
    _, due = Turn(playbook, machine, Versions(open=True)).look()
    assert due.outcome is (Outcome.CHANGEABLE if ours else Outcome.BLOCKED)
    assert ("toy-dkms is held at 1.0 by somebody else" in due.reason) is not ours
    as_it_is = a_playbook(a_packaged("1.0"))
    assert Turn(as_it_is, machine, Versions(open=True)).look()[1].outcome is not Outcome.BLOCKED


def test_a_downgrade_is_allowed_where_the_playbook_leaves_no_other_version() -> None:
    machine = a_machine()
    brought(machine, a_playbook(a_packaged("2.0")))
    assert "--allow-downgrade" not in machine.ran[0].argv
    brought(machine, a_playbook(a_packaged("1.0")))
    assert machine.debs["toy-dkms"].version == "1.0"


def test_back_to_the_kept_packages_by_exact_version() -> None:
    """The pattern fits both versions: only the exact one that was kept proves that a node stands there again."""
    machine, playbook = a_machine(), a_playbook(a_packaged("1.*"))
    brought(replace(machine), playbook)
    machine = a_machine(mirror=frozenset({("toy-dkms", "1.0")}), lists=frozenset({("toy-dkms", "1.0")}))
    brought(machine, playbook)
    kept = Driver.model_validate_json(machine.good["toy"].wanted)
    assert kept.apt is not None
    assert kept.apt.packages == {"toy-dkms": "1.0"}
    machine.mirror = machine.lists = frozenset({("toy-dkms", "1.0"), ("toy-dkms", "1.1")})
    wanted, due = Turn(playbook, machine, Versions(upgrade=True, open=True)).look()
    for step in due.stage:
        machine.run(step, payload(wanted))
    _, due = Turn(playbook, machine, Versions(upgrade=True, open=True)).look()
    for step in due.outage:
        machine.run(step, payload(wanted))
    good = a_playbook(kept)
    assert plan(good, machine.facts(good)).outcome is not Outcome.CONVERGED
    for step in restore((kept,), {"toy": stage_key(wanted.drivers[0], machine.facts(playbook))}, ("toy",)):
        machine.run(step, {})
    assert plan(good, machine.facts(good)).outcome is Outcome.CONVERGED
    assert (machine.debs["toy-dkms"].version, machine.staged) == ("1.0", {})


def test_a_module_of_the_kernel_with_packages_beside_it() -> None:
    """As rdma_rxe with rdma-core: packages that build nothing, a module file that is there already, or never."""
    driver = Driver(name="rxe", apt=AptSource(packages={"rdma-core": "44.0-2"}), modules=("rdma_rxe",))
    held = {"rdma-core": Package(name="rdma-core", version="44.0-2", status="installed", held=True)}
    without = replace(some_facts(), packages=held, configuration={})
    due = plan(a_playbook(driver), without)
    assert (due.outcome, "no rdma_rxe for" in due.reason) == (Outcome.INCOMPATIBLE, True)


# ---- what a pattern means


def lists_of(*versions: str, age: int | None = 60, **more: Any) -> NodeFacts:
    """Return facts of a node whose lists offer these versions."""
    offered = tuple(Candidate(name="toy-dkms", version=v, sha256=sha256(f"toy-dkms {v}")) for v in versions)
    return replace(some_facts(), candidates=offered, lists_seconds=age, **more)


PIN = "debian 12/amd64/toy-dkms"


def test_the_newest_of_all_nodes_with_new_lists() -> None:
    playbook = a_playbook(a_packaged("1.*"))
    pins = resolved(playbook, (lists_of("1.0"), lists_of("1.1", "2.0"), lists_of("1.2", age=DAY + 1)), {})
    assert pins == {PIN: f"1.1 {sha256('toy-dkms 1.1')}"}
    assert resolved(playbook, (lists_of("1.2"),), pins) == pins, "the first answer stands"
    assert resolved(playbook, (lists_of("2.0"),), {}) == {}
    other = resolved(playbook, (lists_of("1.2", os="debian 13"),), pins)
    assert shown(other) == {"toy-dkms for debian 12/amd64": "1.1", "toy-dkms for debian 13/amd64": "1.2"}


@pytest.mark.parametrize(
    ("refreshed", "new"),
    [
        ({}, False),
        ({"toy": Refreshed(seconds=60, repository="")}, False),
        ({"toy": Refreshed(seconds=60, repository=OWN_REPOSITORY)}, True),
        ({"toy": Refreshed(seconds=DAY + 1, repository=OWN_REPOSITORY)}, False),
        ({"net": Refreshed(seconds=60, repository=OWN_REPOSITORY)}, False),
    ],
)
def test_lists_count_as_new_only_with_the_drivers_own_repository(
    refreshed: dict[str, Refreshed], new: bool
) -> None:
    playbook = a_playbook(a_packaged("1.*", repository=REPOSITORY))
    assert bool(resolved(playbook, (lists_of("1.1", refreshed=refreshed),), {})) is new


def test_a_repository_with_another_key_is_asked_anew_before_any_outage() -> None:
    """Else the old key would be settled again by the outage, and the node would never be as wanted."""
    machine, other = a_machine(), REPOSITORY.model_copy(update={"fingerprint": "B" * 40})
    brought(machine, a_playbook(a_packaged("1.1", repository=REPOSITORY)))
    *rounds, (_, last) = Turn(
        a_playbook(a_packaged("1.1", repository=other)), machine, Versions(open=True)
    ).rounds()
    assert [step.program for step in rounds[0][1].stage] == ["apt_refresh.sh"]
    assert last.outcome is Outcome.CONVERGED


@pytest.mark.parametrize("more", [{"pattern": "1.2"}, {"pattern": "1.1", "hold": False}])
def test_two_drivers_may_share_a_package_only_as_the_same(more: dict[str, Any]) -> None:
    """Else each would undo what the other wants, and the node would never be as wanted."""
    one, other = a_packaged("1.1"), a_packaged(**more).model_copy(update={"name": "net", "modules": ("net",)})
    same = a_packaged("1.1").model_copy(update={"name": "net", "modules": ("net",)})
    assert len(a_playbook(one, same).drivers) == 2
    with pytest.raises(ValueError, match="package toy-dkms is wanted in two ways, by toy and net"):
        a_playbook(one, other)


def test_what_the_playbook_pins_itself_counts() -> None:
    own = "b" * 64
    driver = a_packaged("1.1", sha256={"toy-dkms": own})
    facts = lists_of("1.1")
    pins = resolved(a_playbook(driver), (facts,), {})
    apt = exact(a_playbook(driver), facts, pins).drivers[0].apt
    assert apt is not None
    assert apt.sha256 == {"toy-dkms": own}
    assert plan(exact(a_playbook(driver), facts, pins), facts).outcome is Outcome.INCOMPATIBLE


def test_a_resolved_version_is_the_same_wanted_state_with_and_without_its_hash() -> None:
    plain, hashed = a_packaged("1.1"), a_packaged("1.1", sha256={"toy-dkms": "b" * 64})
    assert plain.digest == hashed.digest
    assert stage_key(plain, some_facts()) != stage_key(hashed, some_facts())
    with pytest.raises(ValueError, match="exact version"):
        a_packaged("1.*", sha256={"toy-dkms": "b" * 64})


def test_nothing_of_the_kernels_own_can_be_kept() -> None:
    with pytest.raises(ValueError, match="nothing of the kernel's own"):
        keep(Driver(name="rxe", modules=("rdma_rxe",)), some_facts())


def test_nothing_is_learnt_while_a_survey_looks() -> None:
    playbook, versions = a_playbook(a_packaged("1.*")), Versions()
    versions.exact(playbook, lists_of("1.0"))
    assert versions.pins == {}
    versions.learn(playbook, (lists_of("1.0"), lists_of("1.1")))
    assert versions.pins[PIN].startswith("1.1 ")
