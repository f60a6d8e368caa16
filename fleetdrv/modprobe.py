"""What a node's files have modprobe give a module, as libkmod and the kernel read them. Pure.

modprobe hands the kernel the options of all files one after the other, by the names of the files, and then those
of the kernel's own command line; of two values of one parameter the kernel takes the later. So a file that
somebody else has put beside ours may win over it, and only its name decides that.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

COMMAND_LINE = "/proc/cmdline"


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionLine:
    """A line that gives a module options; of the kernel's command line all of it."""

    path: str
    first: int
    last: int
    """Numbers of its lines in the file: one that ends in a backslash goes on in the next."""
    text: str

    @property
    def place(self) -> str:
        """File and line, for people."""
        return self.path if self.path == COMMAND_LINE else f"{self.path}:{self.first}"

    @property
    def order(self) -> tuple[bool, str]:
        """What modprobe sorts by."""
        return self.path == COMMAND_LINE, self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One parameter that such a line gives one module."""

    module: str
    name: str
    value: str
    written: str
    """As it stands in the line."""
    alone: bool
    """Nothing else stands there."""
    line: OptionLine

    @property
    def remedy(self) -> str:
        """The command that takes it out, for a shell on the node."""
        if self.line.path == COMMAND_LINE:
            return f"take {self.written} out of the kernel's command line (/etc/default/grub, update-grub), reboot"
        lines = f"{self.line.first},{self.line.last}" if self.line.last > self.line.first else f"{self.line.first}"
        word = re.sub(r"([][/\\.*^$])", r"\\\1", self.written)
        edit = f"{lines}s/^/#/" if self.alone else f"{lines}s/{word}//"
        path, copy = self.line.path, ""
        if not path.startswith("/etc/"):
            # A package's, which its next version writes anew; one of the same name in /etc hides it.
            path = f"/etc/modprobe.d/{path.rpartition('/')[2]}"
            copy = f"cp {shlex.quote(self.line.path)} {shlex.quote(path)} && "
        return f"{copy}sed -i {shlex.quote(edit)} {shlex.quote(path)}"


def settings(lines: Iterable[OptionLine]) -> Iterator[Setting]:
    """Yield all that the lines set, in the order in which the kernel takes it.

    >>> line = OptionLine(path="/etc/modprobe.d/a.conf", first=1, last=1, text='options nvidia-uvm a=1 "b-c=x y"')
    >>> [(one.module, one.name, one.value) for one in settings([line])]
    [('nvidia_uvm', 'a', '1'), ('nvidia_uvm', 'b_c', 'x y')]
    """
    for line in sorted(lines, key=lambda line: line.order):
        words = _WORD.findall(line.text)
        if line.path == COMMAND_LINE:
            for word in words:
                module, dot, said = word.lstrip('"').partition(".")
                if dot and "=" not in module:
                    yield _setting(module, said, word, alone=False, line=line)
        else:
            module, *given = words[1:] or [""]
            for word in given:
                plain = re.sub(r"\\(.)", r"\1", word)  # libkmod drops a backslash, whatever follows it
                yield _setting(module, plain, word, alone=len(given) == 1, line=line)


_WORD = re.compile(r'(?:"[^"]*"?|[^\s"])+')


def _setting(module: str, said: str, written: str, *, alone: bool, line: OptionLine) -> Setting:
    if said.startswith('"') or written.startswith('"'):
        said = said.removeprefix('"').removesuffix('"')
    name, equals, value = said.partition("=")
    if value.startswith('"'):
        value = value.removeprefix('"').removesuffix('"')
    # A name alone switches a bool on.
    value = value if equals else "1"
    module, name = module.replace("-", "_"), name.replace("-", "_")
    return Setting(module=module, name=name, value=value, written=written, alone=alone, line=line)


def plain_value(value: str) -> str:
    """Return a parameter as the kernel shows it: it shows a bool as Y or N, a number in decimal.

    Numbers are read as kstrtoint does with base 0: 0x is hexadecimal, a leading 0 octal.
    """
    if re.fullmatch(r"[-+]?0[xX][0-9a-fA-F]+", value):
        return str(int(value, 16))
    if re.fullmatch(r"[-+]?0[0-7]+", value):
        return str(int(value, 8))
    return {"y": "1", "yes": "1", "true": "1", "on": "1", "n": "0", "no": "0", "false": "0", "off": "0"}.get(
        value.lower(), value
    )
