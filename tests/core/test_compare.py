"""One driver held against one node, layer by layer: what differs, in words an operator can use."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetdrv.compare import Difference, Layer, compare, failed_checks, notes, with_dependants
from fleetdrv.model import CheckResult, DkmsEntry, Identity, Kernels, NodeFacts
from fleetdrv.playbook import Driver, Playbook
from tests.core.factories import (
    KERNEL,
    NEXT_KERNEL,
    a_driver,
    a_file,
    a_loaded,
    an_identity,
    configured,
    installed,
    sha256,
    some_facts,
)
from tests.core.strategies import machines, pick, playbooks, put

TOY = a_driver()
TWO = Kernels(running=KERNEL, newest=NEXT_KERNEL, default=KERNEL)
PAIR = a_driver(modules=("toy", "toy_uvm"))
OPTIONS, AUTOLOAD = "/etc/modprobe.d/fleetdrv-toy.conf", "/etc/modules-load.d/fleetdrv-toy.conf"


def told(driver: Driver, facts: NodeFacts) -> list[str]:
    """Return the differences in words."""
    return [str(difference) for difference in compare(driver, facts).differences]


def unloads(driver: Driver, facts: NodeFacts) -> list[str]:
    """Return the modules that must leave the kernel."""
    return [module.name for module in compare(driver, facts).unload]


def on_two_kernels(**more: object) -> NodeFacts:
    """Return facts of a node whose next kernel is another one, all as wanted."""
    both = {
        "kernels": TWO,
        "dkms": (installed(), installed(kernel=NEXT_KERNEL)),
        "files": (a_file(), a_file(kernel=NEXT_KERNEL)),
    }
    return some_facts(TOY, **{**both, **more})


def test_a_difference_reads_as_a_sentence() -> None:
    difference = Difference(driver="toy", layer=Layer.LOADED, found="1.0", wanted="1.1")
    assert str(difference) == "toy: loaded: found 1.0, want 1.1"


def test_a_driver_that_is_as_wanted_has_nothing_to_say() -> None:
    result = compare(TOY, some_facts(TOY))
    assert (result.differences, result.kernels, result.unload) == ((), (), ())
    assert not result.installs
    assert result.layers == frozenset()
    assert compare(TOY, on_two_kernels()).differences == ()


# ---- hardware


@pytest.mark.parametrize(
    ("wanted", "there"),
    [
        ("10de:*", True),
        ("10de:2204", True),
        ("10de:2205", False),
        ("15b3:*", False),
        ("10d:*", False),
        ("8086:*", True),
    ],
)
def test_a_device_is_named_by_vendor_or_by_vendor_and_device(wanted: str, there: bool) -> None:
    driver = TOY.model_copy(update={"requires_pci": (wanted,)})
    facts = some_facts(driver, pci=frozenset({"10de:2204", "8086:1237"}))
    expected = [] if there else [f"toy: hardware: found no such device, want PCI {wanted}"]
    assert told(driver, facts) == expected


def test_every_device_that_is_missing_is_told() -> None:
    driver = a_driver(requires_pci=("10de:*", "15b3:1017"))
    assert len(told(driver, some_facts(driver))) == 2


# ---- built


def test_a_module_of_the_kernel_that_dkms_put_aside_is_no_difference() -> None:
    """So it stands on every node whose NIC driver has a namesake in the kernel's own tree."""
    assert told(TOY, some_facts(TOY, dkms=(installed(remark="Original modules exist"),))) == []


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        (None, "nothing"),
        (installed(state="built"), "built"),
        (installed(state="broken"), "broken"),
        (
            installed(remark="Differences between built and installed"),
            "installed Differences between built and installed",
        ),
        (
            installed(remark="Original modules exist; Built modules are missing"),
            "installed Built modules are missing",
        ),
        (
            installed(remark="Differences found; Original modules exist; Built modules are missing"),
            "installed Differences found; Built modules are missing",
        ),
        (installed("other"), "nothing"),
        (installed(kernel=NEXT_KERNEL), "nothing"),
    ],
)
def test_dkms_must_hold_the_version_for_installed(entry: DkmsEntry | None, found: str) -> None:
    facts = some_facts(TOY, dkms=(entry,) if entry else ())
    assert told(TOY, facts) == [f"toy: built: found {found} for {KERNEL}, want toy/1.1 installed"]
    result = compare(TOY, facts)
    assert (result.kernels, result.installs) == ((KERNEL,), True)
    assert unloads(TOY, facts) == ["toy"]


def test_a_build_is_wanted_for_every_kernel_that_can_boot_next_and_brought_for_those_alone() -> None:
    facts = on_two_kernels(dkms=(installed(),))
    assert told(TOY, facts) == [f"toy: built: found nothing for {NEXT_KERNEL}, want toy/1.1 installed"]
    assert compare(TOY, facts).kernels == (NEXT_KERNEL,)
    assert unloads(TOY, facts) == []
    other = on_two_kernels(dkms=(installed(kernel=NEXT_KERNEL),))
    assert compare(TOY, other).kernels == (KERNEL,)
    assert unloads(TOY, other) == ["toy"]


def test_the_kernels_own_module_put_aside_by_dkms_is_no_difference() -> None:
    facts = some_facts(TOY, dkms=(installed(remark="Original modules exist"),))
    assert compare(TOY, facts).differences == ()


def test_every_kernel_without_a_build_is_told() -> None:
    facts = on_two_kernels(dkms=())
    assert [said.split(",")[0] for said in told(TOY, facts)] == [
        f"toy: built: found nothing for {KERNEL}",
        f"toy: built: found nothing for {NEXT_KERNEL}",
    ]
    assert compare(TOY, facts).kernels == (KERNEL, NEXT_KERNEL)


def test_other_versions_that_dkms_would_build_again_are_a_difference() -> None:
    others = (
        DkmsEntry(name="toy", version="1.0", state="added"),
        installed(version="0.9", kernel="5.10"),
        installed(version="0.9", kernel="5.11"),
        installed("other", "7"),
    )
    facts = some_facts(TOY, dkms=(*others, installed()))
    assert told(TOY, facts) == ["toy: built: found toy/0.9, 1.0, want only toy/1.1"]
    assert compare(TOY, facts).kernels == (KERNEL,)


def test_other_versions_are_taken_away_beside_a_kernel_that_does_not_run() -> None:
    facts = on_two_kernels(dkms=(*on_two_kernels().dkms, DkmsEntry(name="toy", version="1.0", state="added")))
    assert compare(TOY, facts).kernels == (NEXT_KERNEL,)
    strict = TOY.model_copy(update={"strict": True})
    assert unloads(strict, facts) == []


@pytest.mark.parametrize(
    ("driver", "marks", "stays"),
    [
        (TOY, an_identity(), True),
        (TOY, replace(an_identity(), srcversion=""), True),
        (TOY, replace(an_identity(), version=""), True),
        (TOY, replace(an_identity(), version="", srcversion=""), False),
        (a_driver(strict=True), an_identity(), False),
    ],
)
def test_code_whose_file_is_built_anew_stays_only_where_it_can_be_known_again(
    driver: Driver, marks: Identity, stays: bool
) -> None:
    facts = some_facts(
        TOY,
        dkms=(installed(), DkmsEntry(name="toy", version="1.0", state="added")),
        loaded={"toy": a_loaded(identity=marks)},
        files=(a_file(identity=marks),),
    )
    assert unloads(driver, facts) == ([] if stays else ["toy"])


# ---- file


def test_a_file_that_is_gone_is_a_difference_although_dkms_says_installed() -> None:
    facts = some_facts(PAIR, files=(a_file(),))
    assert told(PAIR, facts) == [f"toy: file: found no toy_uvm for {KERNEL}, want toy_uvm of toy/1.1"]
    assert compare(PAIR, facts).kernels == (KERNEL,)
    assert unloads(PAIR, facts) == ["toy_uvm", "toy"]


def test_a_file_that_is_gone_under_another_kernel_leaves_the_loaded_code_alone() -> None:
    facts = on_two_kernels(files=(a_file(),))
    assert told(TOY, facts) == [f"toy: file: found no toy for {NEXT_KERNEL}, want toy of toy/1.1"]
    assert (compare(TOY, facts).kernels, unloads(TOY, facts)) == ((NEXT_KERNEL,), [])


# ---- loaded


def test_each_module_that_is_not_loaded_is_told_and_what_is_loaded_goes_first() -> None:
    facts = some_facts(PAIR, loaded={"toy": a_loaded()})
    assert told(PAIR, facts) == ["toy: loaded: found toy_uvm not loaded, want toy_uvm 1.1"]
    assert unloads(PAIR, facts) == ["toy"]
    assert compare(PAIR, facts).kernels == ()


@pytest.mark.parametrize("state", ["coming", "going"])
def test_a_module_half_way_in_or_out_is_not_loaded(state: str) -> None:
    facts = some_facts(TOY, loaded={"toy": a_loaded(state=state)})
    assert told(TOY, facts) == [f"toy: loaded: found toy state {state}, want toy 1.1"]


@pytest.mark.parametrize(
    ("marks", "code"),
    [
        (Identity(build_id="b", srcversion="s", version="1.0"), "1.0"),
        (Identity(build_id="b", srcversion="s"), "s"),
        (Identity(build_id="b"), "b"),
        (Identity(), "of unknown origin"),
    ],
)
def test_loaded_code_that_is_not_its_files_is_told_by_its_best_mark(marks: Identity, code: str) -> None:
    facts = some_facts(TOY, loaded={"toy": a_loaded(identity=marks)})
    path = f"/lib/modules/{KERNEL}/updates/dkms/toy.ko.xz"
    assert told(TOY, facts) == [
        f"toy: loaded: found toy {code}, other code than its file, want the code of {path}"
    ]
    assert unloads(TOY, facts) == ["toy"]


def test_code_that_was_only_rebuilt_is_a_note_unless_the_playbook_is_strict() -> None:
    facts = some_facts(TOY, loaded={"toy": a_loaded(identity=an_identity(build="b"))})
    assert told(TOY, facts) == []
    assert list(notes((TOY,), facts)) == [
        "toy on disk was rebuilt from the same source; the loaded code is as good"
    ]
    assert "other code than its file" in told(a_driver(strict=True), facts)[0]
    assert list(notes((TOY,), some_facts(TOY))) == []
    assert list(notes((TOY,), some_facts(TOY, loaded={}))) == []
    assert list(notes((TOY,), some_facts(TOY, files=()))) == []


def test_strict_code_that_is_the_same_stays() -> None:
    assert told(a_driver(strict=True), some_facts(TOY)) == []


def test_modules_leave_in_the_reverse_of_their_load_order() -> None:
    driver = a_driver(modules=("a", "b", "c"), version="1.2")
    facts = some_facts(a_driver(modules=("a", "b", "c")))
    assert unloads(driver, facts) == ["c", "b", "a"]


# ---- parameters and configuration


def with_options(**values: str) -> Driver:
    """Return the toy driver with parameters."""
    return a_driver(parameters={"toy": values})


@pytest.mark.parametrize(
    ("wanted", "shown"),
    [
        ("1", "Y"),
        ("y", "Y"),
        ("Yes", "Y"),
        ("true", "Y"),
        ("on", "Y"),
        ("0", "N"),
        ("n", "N"),
        ("NO", "N"),
        ("false", "N"),
        ("Off", "N"),
        ("0x10", "16"),
        ("0XfF", "255"),
        ("-0x1", "-1"),
        ("020", "16"),
        ("fast", "fast"),
        ("12", "12"),
        ("1,2,3", "1,2,3"),
    ],
)
def test_a_parameter_is_held_against_what_the_kernel_makes_of_it(wanted: str, shown: str) -> None:
    driver = with_options(mode=wanted)
    facts = some_facts(driver, loaded={"toy": a_loaded(parameters={"mode": shown, "other": "5"})})
    assert told(driver, facts) == []


@pytest.mark.parametrize(
    ("wanted", "shown"), [("fast", "Fast"), ("1", "N"), ("0x10", "10"), ("08", "8"), ("2", "Y")]
)
def test_a_parameter_of_another_value_needs_a_reload(wanted: str, shown: str) -> None:
    driver = with_options(mode=wanted)
    facts = some_facts(driver, loaded={"toy": a_loaded(parameters={"mode": shown})})
    assert told(driver, facts) == [f"toy: parameters: found toy.mode={shown}, want toy.mode={wanted}"]
    assert unloads(driver, facts) == ["toy"]


def test_a_parameter_that_the_kernel_does_not_show_is_trusted_where_its_file_is_as_wanted() -> None:
    driver = with_options(mode="fast")
    assert told(driver, some_facts(driver)) == []


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({}, [f"{OPTIONS} absent", f"{AUTOLOAD} absent"]),
        ({OPTIONS: "x", AUTOLOAD: "y"}, [f"{OPTIONS} with other content", f"{AUTOLOAD} with other content"]),
    ],
)
def test_our_own_files_must_be_as_the_playbook_says(found: dict[str, str], words: list[str]) -> None:
    driver = with_options(mode="fast")
    facts = some_facts(driver, configuration=found)
    assert told(driver, facts) == [f"toy: configuration: found {w}, want as the playbook says" for w in words]


def test_a_file_of_options_that_are_not_wanted_any_more_must_go_and_the_code_that_had_them() -> None:
    facts = some_facts(TOY, configuration={**configured(TOY), OPTIONS: sha256("options toy mode=slow\n")})
    assert told(TOY, facts) == [f"toy: configuration: found {OPTIONS} with other content, want absent"]
    assert unloads(TOY, facts) == ["toy"]


@pytest.mark.parametrize(
    ("parameters", "former", "reloads"),
    [
        ({"mode": "fast"}, None, False),  # in force already, and it shows
        ({}, None, True),  # nobody can see whether it is in force
        ({"mode": "fast"}, "other options", True),  # nobody can see what else was
    ],
)
def test_new_options_reload_the_code_unless_they_are_seen_in_force(
    parameters: dict[str, str], former: str | None, reloads: bool
) -> None:
    driver = with_options(mode="fast")
    files = {**configured(driver), **({OPTIONS: sha256(former)} if former else {})}
    if not former:
        del files[OPTIONS]
    facts = some_facts(driver, loaded={"toy": a_loaded(parameters=parameters)}, configuration=files)
    assert unloads(driver, facts) == (["toy"] if reloads else [])


def test_a_list_of_modules_to_load_at_boot_is_written_without_a_reload() -> None:
    driver = with_options(mode="fast")
    facts = some_facts(driver, configuration={OPTIONS: configured(driver)[OPTIONS]})
    assert told(driver, facts) == [f"toy: configuration: found {AUTOLOAD} absent, want as the playbook says"]
    assert unloads(driver, facts) == []


def test_options_of_a_module_that_is_not_loaded_are_in_nobodys_doubt() -> None:
    driver = a_driver(modules=("toy", "toy_uvm"), parameters={"toy_uvm": {"mode": "fast"}})
    facts = some_facts(driver, configuration={AUTOLOAD: configured(driver)[AUTOLOAD]})
    only_toy = replace(facts, loaded={"toy": a_loaded()})
    assert compare(driver, facts).unload != ()
    assert Layer.LOADED in compare(driver, only_toy).layers


# ---- checks


def test_a_failed_check_is_told_with_its_last_words() -> None:
    driver = a_driver(checks=(("toy-smi", "-L"), ("true",)))
    results = (
        CheckResult(argv=("toy-smi", "-L"), exit_code=3, output="looking\nNo devices\nGiving up  \n\n"),
        CheckResult(argv=("true",), exit_code=0, output=""),
        CheckResult(argv=("another", "driver's"), exit_code=1, output=""),
    )
    assert [str(d) for d in failed_checks(driver, some_facts(TOY, checks=results))] == [
        "toy: checks: found toy-smi -L: exit 3: Giving up, want exit 0"
    ]
    silent = (replace(results[0], output=" \n"),)
    (difference,) = failed_checks(driver, some_facts(TOY, checks=silent))
    assert difference.found == "toy-smi -L: exit 3: no output"
    assert compare(driver, some_facts(TOY, checks=results)).differences == ()


# ---- together


def test_dkms_that_builds_nothing_for_later_kernels_is_a_note() -> None:
    (note,) = notes((TOY,), some_facts(TOY, no_autoinstall=True))
    assert note == "/etc/dkms/no-autoinstall is there: DKMS builds nothing for kernels that come later"


def test_who_holds_code_that_leaves_leaves_with_it() -> None:
    first, second, third = a_driver("a", "1.2"), a_driver("b"), a_driver("c")
    loaded = {"a": a_loaded("a", holders=frozenset({"b"})), "b": a_loaded("b"), "c": a_loaded("c")}
    facts = some_facts(
        a_driver("a"), loaded=loaded, files=tuple(map(a_file, "abc")), dkms=tuple(map(installed, "abc"))
    )
    facts = replace(facts, configuration=configured(first, second, third))
    result = list(with_dependants((compare(driver, facts) for driver in (first, second, third)), facts))
    assert [[module.name for module in one.unload] for one in result] == [["a"], ["b"], []]
    assert [one.driver.name for one in result] == ["a", "b", "c"]
    assert result[1].differences == ()


def test_who_holds_code_that_leaves_leaves_with_it_whoever_stands_between_them() -> None:
    first, second, third = a_driver("a", "1.2"), a_driver("b"), a_driver("c")
    loaded = {"a": a_loaded("a", holders=frozenset({"c"})), "b": a_loaded("b"), "c": a_loaded("c")}
    facts = some_facts(
        a_driver("a"), loaded=loaded, files=tuple(map(a_file, "abc")), dkms=tuple(map(installed, "abc"))
    )
    facts = replace(facts, configuration=configured(first, second, third))
    result = with_dependants((compare(driver, facts) for driver in (first, second, third)), facts)
    assert [[module.name for module in one.unload] for one in result] == [["a"], [], ["c"]]


@given(playbooks(), st.data())
def test_each_driver_is_judged_by_its_own_layers_alone(playbook: Playbook, data: st.DataObject) -> None:
    machine, driver = data.draw(machines(playbook)), pick(data.draw, playbook.drivers)
    for other in playbook.drivers:
        if other is not driver:
            put(machine, a_driver(other.name, "9.9", modules=other.modules))
    assert compare(driver, machine.facts(playbook)).differences == ()
