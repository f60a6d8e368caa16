"""Change the core in a thousand small ways, one at a time, and count which changes no test notices.

    python -m tests.mutation [MODULE…]        needs: pip install mutmut

mutmut makes the changes and runs tests/core/test_MODULE.py of all MODULES against each, in a copy of
the tree: nothing of it stays here but RESULTS.md. Each change that survives must be named in survivors.py,
with the reason why no test can, or need, notice it; otherwise, and below the goal, this exits 1.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.mutation.survivors import REASONS

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MODULES = (
    *("built", "compare", "steps", "resolve", "plan", "turn"),
    *("rollout", "slots", "windows", "progress", "attempts", "undo"),
)
TESTS = ("apt", *MODULES)
"""tests/core/test_NAME.py, where there is one: built, steps and resolve are tested by what is planned."""
GOAL_PERCENT = 90.0
NO_REASON = "**no reason given**"
_SURVIVED, _NO_TESTS = 0, 33
"""mutmut's exit codes: the tests passed, or none of them runs the function. Any other is a kill."""

SETTINGS = """
[tool.mutmut]
source_paths = ["fleetdrv"]
only_mutate = [{only}]
pytest_add_cli_args_test_selection = [{tests}]
pytest_add_cli_args = ["-p", "no:cacheprovider"]
"""


@dataclass(frozen=True, slots=True)
class Survivor:
    """One change that no test noticed."""

    function: str
    before: str
    after: str

    @property
    def reason(self) -> str:
        """Return why it may live."""
        return REASONS.get((self.function, self.after), NO_REASON)


@dataclass(frozen=True, slots=True)
class Score:
    """How one module fared."""

    module: str
    mutants: int
    survivors: tuple[Survivor, ...]

    @property
    def percent(self) -> float:
        """Return how many of a hundred changes were noticed."""
        return 100.0 * (self.mutants - len(self.survivors)) / max(1, self.mutants)


def main(modules: Sequence[str]) -> int:
    """Mutate, test, write RESULTS.md."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fleetdrv-mutation-") as name:
        copy = Path(name)
        _copy(copy, modules)
        _run(copy)
        scores = [_score(copy, module) for module in modules]
    minutes = (time.monotonic() - started) / 60
    text = "\n".join(_report(scores, minutes))
    print(text)
    if tuple(modules) == MODULES:
        (HERE / "RESULTS.md").write_text(text + "\n", encoding="utf-8")
    fine = all(score.percent >= GOAL_PERCENT for score in scores)
    explained = all(survivor.reason != NO_REASON for score in scores for survivor in score.survivors)
    return 0 if fine and explained else 1


def _copy(copy: Path, modules: Sequence[str]) -> None:
    ignore = shutil.ignore_patterns("__pycache__", "lab")
    shutil.copytree(ROOT / "fleetdrv", copy / "fleetdrv", ignore=ignore)
    shutil.copytree(ROOT / "tests" / "core", copy / "tests" / "core", ignore=ignore)
    (copy / "tests" / "__init__.py").touch()
    only = ", ".join(f'"fleetdrv/{module}.py"' for module in modules)
    there = [path for path in (f"tests/core/test_{name}.py" for name in TESTS) if (ROOT / path).exists()]
    tests = ", ".join(f'"{path}"' for path in there)
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8") + SETTINGS.format(only=only, tests=tests)
    (copy / "pyproject.toml").write_text(settings, encoding="utf-8")


def _run(copy: Path) -> None:
    """Let mutmut work; its own words matter only when it cannot."""
    with (copy / "mutmut.log").open("wb") as log:
        done = subprocess.run(
            [sys.executable, "-m", "mutmut", "run", "--max-children", "1"],
            cwd=copy,
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode != 0:
        said = (copy / "mutmut.log").read_text(encoding="utf-8", errors="replace")
        lines = [line.rpartition("\r")[2] for line in said.splitlines()]
        sys.exit("mutmut could not run:\n" + "\n".join(lines[-40:]))


def _score(copy: Path, module: str) -> Score:
    meta = json.loads((copy / "mutants" / "fleetdrv" / f"{module}.py.meta").read_text(encoding="utf-8"))
    codes: Mapping[str, int | None] = meta["exit_code_by_key"]
    assert codes, f"mutmut found nothing to change in {module}.py"
    assert None not in codes.values(), f"mutmut did not try all changes of {module}.py"
    alive = [name for name, code in codes.items() if code in (_SURVIVED, _NO_TESTS)]
    return Score(module, len(codes), tuple(_survivor(copy, name) for name in alive))


def _survivor(copy: Path, mutant: str) -> Survivor:
    shown = subprocess.run(
        [sys.executable, "-m", "mutmut", "show", mutant], cwd=copy, capture_output=True, text=True, check=True
    )
    lines = [line for line in shown.stdout.splitlines() if line[:3] not in ("---", "+++")]
    before, after = (" ".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in "-+")
    return Survivor(mutant.rpartition(".")[2].partition("__mutmut")[0].removeprefix("x_"), before, after)


def _report(scores: Sequence[Score], minutes: float) -> Iterator[str]:
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    yield "# Mutation testing of the core"
    yield ""
    yield f"Written by `python -m tests.mutation` on {time.strftime('%Y-%m-%d', time.gmtime())}, commit "
    yield f"{commit.stdout.strip() or 'unknown'}, in {minutes:.0f} minutes. The goal is {GOAL_PERCENT:.0f} %."
    yield ""
    yield "| module | changes | killed | survived | score |"
    yield "|---|---:|---:|---:|---:|"
    for score in scores:
        alive = len(score.survivors)
        killed = score.mutants - alive
        yield f"| {score.module}.py | {score.mutants} | {killed} | {alive} | {score.percent:.1f} % |"
    for score in scores:
        if score.survivors:
            yield ""
            yield f"## Survivors in {score.module}.py"
            yield ""
        for one in score.survivors:
            yield f"- `{one.function}`: `{one.before}` became `{one.after}`: {one.reason}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or MODULES))
