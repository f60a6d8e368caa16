"""Hear of each change of the Nodes with a label, and write down after each who is out of service.

Usage: python -m tests.rollout.watcher KUBECONFIG LABEL=VALUE FILE
Begins with a list and watches from its resourceVersion on, so no change is missed: what a poll could sleep through
is seen. Says "watching" once it does, and writes a line of JSON per change. Ends by being killed.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from tests.rollout.api_proxy import client

_PATH = "/api/v1/nodes"


def main(kubeconfig: str, label: str, file: str) -> None:
    """Watch until killed."""
    with tempfile.TemporaryDirectory() as folder, Path(file).open("a", buffering=1) as said:
        api = client(yaml.safe_load(Path(kubeconfig).read_text()), Path(folder))
        listed = api.get(_PATH, params={"labelSelector": label}).raise_for_status().json()
        out = {node["metadata"]["name"] for node in listed["items"] if _is_out(node)}
        query = {"labelSelector": label, "watch": "1", "timeoutSeconds": "7200",
                 "resourceVersion": listed["metadata"]["resourceVersion"]}
        with api.stream("GET", _PATH, params=query, timeout=None) as answer:
            answer.raise_for_status()
            print("watching", flush=True)
            for line in answer.iter_lines():
                event = json.loads(line)
                assert event["type"] in ("ADDED", "MODIFIED", "DELETED"), event
                node, name = event["object"], event["object"]["metadata"]["name"]
                gone = event["type"] == "DELETED" or not _is_out(node)
                out = out - {name} if gone else out | {name}
                said.write(json.dumps(sorted(out)) + "\n")
    raise SystemExit("the API ended the watch")


def _is_out(node: dict[str, Any]) -> bool:
    return bool(node["spec"].get("unschedulable"))


if __name__ == "__main__":
    main(*sys.argv[1:])
