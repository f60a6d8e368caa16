"""A package mirror of the test's own, on loopback, which the practice nodes reach under a name of their own."""

from __future__ import annotations

import functools
import subprocess
import tempfile
import threading
from collections.abc import Callable
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from fleetdrv.lab import seed
from tests.apt.repository import Key, Repository


class Mirror:
    """A signed repository behind HTTP; every request is written down."""

    def __init__(self, folder: Path) -> None:
        self._key = Key()
        self.repository = Repository(folder / "mirror", self._key)
        self.key = folder / "mirror.asc"
        self.key.write_bytes(self._key.armoured)
        self.requests: list[str] = []
        handler = functools.partial(_Handler, directory=str(folder / "mirror"), note=self.requests.append)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def source(self) -> dict[str, Any]:
        """Give the repository as a playbook names it."""
        uri = f"http://{seed.HOST}:{self._server.server_address[1]}"
        return {"uri": uri, "suites": ["stable"], "components": ["main"], "key": str(self.key),
                "fingerprint": self._key.fingerprint}

    def close(self) -> None:
        """End server and key agent."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._key.__exit__()


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, *arguments: Any, note: Callable[[str], None], **more: Any) -> None:
        self._note = note
        super().__init__(*arguments, **more)

    def log_message(self, format: str, *arguments: Any) -> None:
        self._note(format % arguments)


def revised(deb: Path, revision: str, change: Callable[[Path], None]) -> Path:
    """Make a later revision of a package, as its maintainer would: `change` gets its unpacked tree."""
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch) / "tree"
        subprocess.run(["dpkg-deb", "-R", deb, tree], check=True)
        control = tree / "DEBIAN" / "control"
        lines = control.read_text().splitlines()
        (version,) = (line.split()[1] for line in lines if line.startswith("Version:"))
        lines = [f"Version: {version}{revision}" if line.startswith("Version:") else line for line in lines]
        control.write_text("\n".join(lines) + "\n")
        change(tree)
        made = deb.with_name(f"{deb.name.split('_')[0]}_{version}{revision}_all.deb")
        subprocess.run(["dpkg-deb", "--root-owner-group", "-Zgzip", "-b", tree, made], check=True,
                       capture_output=True)
    return made
