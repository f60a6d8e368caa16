"""Debian's Prometheus, node_exporter and Pushgateway on loopback, as an operator has them."""

from __future__ import annotations

import json
import socket
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from tests.fixtures_cluster import eventually


class Prometheus:
    """Scrapes a folder of textfiles through node_exporter (job `node`), and a Pushgateway (job `push`)."""

    def __init__(self, folder: Path) -> None:
        self.textfiles = folder / "textfiles"
        self.textfiles.mkdir(parents=True)
        self._ports = dict(zip(("prometheus", "node", "push"), _free_ports(3), strict=True))
        self._log = (folder / "log").open("wb")
        node, push = self._at("node"), self._at("push")
        jobs = [
            {"job_name": "node", "static_configs": [{"targets": [node]}]},
            {"job_name": "push", "honor_labels": True, "static_configs": [{"targets": [push]}]},
        ]
        config = folder / "prometheus.yml"
        every = {"scrape_interval": "1s", "scrape_timeout": "1s"}
        config.write_text(yaml.safe_dump({"global": every, "scrape_configs": jobs}))
        self._children: list[subprocess.Popen[bytes]] = []
        self._start("prometheus-node-exporter", f"--web.listen-address={node}", "--collector.disable-defaults",
                    "--collector.textfile", f"--collector.textfile.directory={self.textfiles}")
        self._start("prometheus-pushgateway", f"--web.listen-address={push}")
        self._start("prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}",
                    f"--web.listen-address={self._at('prometheus')}")
        eventually(lambda: len(self._query("up == 1")) == 2, f"both targets to be up; see {folder / 'log'}")

    @property
    def gateway(self) -> str:
        """The Pushgateway's URL."""
        return f"http://{self._at('push')}"

    def _at(self, which: str) -> str:
        return f"127.0.0.1:{self._ports[which]}"

    def _start(self, *argv: str) -> None:
        self._children.append(subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log))

    def fresh(self) -> None:
        """Wait for a scrape of both targets that began after this moment."""
        (now,) = self._query("vector(time())")
        eventually(lambda: len(self._query(f"timestamp(up) > {now['value'][1]}")) == 2, "a scrape")

    def values(self, query: str, *labels: str) -> dict[tuple[str, ...], float]:
        """Return the answer to a query: the values of some labels, and the sample."""
        found = self._query(query)
        return {tuple(row["metric"].get(key, "") for key in labels): float(row["value"][1]) for row in found}

    def _query(self, query: str) -> list[Any]:
        url = f"http://{self._at('prometheus')}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return list(json.load(answer)["data"]["result"])
        except OSError:  # it is about to start
            return []

    def close(self) -> None:
        """End all three."""
        for child in self._children:
            child.terminate()
        for child in self._children:
            child.wait(30)
        self._log.close()


def _free_ports(number: int) -> list[int]:
    """Return ports that nobody listens on just now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
