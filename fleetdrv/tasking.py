"""What makes a command of a plain function: shared options, short flags, exit codes, over Invoke's tasks.

`fleetdrv --help` and shell completion import nothing but Invoke, tasks.py and this file.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from invoke.collection import Collection
from invoke.context import Context
from invoke.exceptions import Exit, ParseError
from invoke.tasks import Task

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
SUDO = ("ask_sudo_password", "sudo_password_file")
LOOK = ("inventory", "limit", "context", "json", "log_json", "no_cluster", "quiet", *SUDO)
METRICS = ("metrics_file", "pushgateway")
CHANGE = (*LOOK, *METRICS, "yes", "reason", "upgrade")
ORDER = ("context", "json", "reason")


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


def command(*shared: str, **helps: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Make a task of a body that takes Options and its own arguments, and returns its exit code."""

    def decorate(body: Callable[..., int]) -> Callable[..., int]:
        own = list(inspect.signature(body).parameters.values())[1:]

        def run(_: Context, /, **given: Any) -> None:
            from fleetdrv.options import Options

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
