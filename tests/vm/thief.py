"""Runs on a practice node: takes compiler and network away as soon as the node is cordoned, gives them back later.

Usage: thief.py take | give-back
"""

import glob
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request

CONFIG = "/etc/fleetdrv-lab.json"
LOOT = "/run/thief.json"
TCP = "6"  # a practice node has no /etc/protocols
PLACES = ("/usr/lib*/gcc/*/*/cc1", "/usr/bin/make", "/usr/bin/*-linux-gnu-as", "/srv/packages", "/etc/resolv.conf")


def configured() -> dict:
    """Read how the kubelet gets at the API."""
    with open(CONFIG) as file:
        return dict(json.load(file))


def cordoned() -> bool:
    """Ask the API, by the kubelet's own way to it."""
    config = configured()
    url = f"http://{config['api_host']}:{config['api_port']}/api/v1/nodes/{config['node']}"
    request = urllib.request.Request(url, headers={"Host": "localhost"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return bool(json.load(answer)["spec"].get("unschedulable"))


def rules(order: str) -> None:
    """Add or delete what forbids every packet but sshd's answers and the kubelet's to the API.

    The way to the world is not all: a mirror may stand beside the node, as the test's own does.
    """
    config = configured()
    api = ["to", config["api_host"], "ipproto", TCP, "dport", str(config["api_port"])]
    ip("rule", order, "preference", "100", "ipproto", TCP, "sport", "22", "lookup", "main")
    ip("rule", order, "preference", "101", *api, "lookup", "main")
    ip("rule", order, "preference", "102", "prohibit")
    ip("-6", "rule", order, "preference", "102", "prohibit")


def ip(*arguments: str) -> str:
    """Run iproute2."""
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True).stdout


def neighbour() -> str:
    """Call the machine beside this one, where the test's mirror listens; return what the kernel says to it."""
    gateway = ip("route", "show", "default").split()[2]
    with socket.socket() as caller:
        caller.settimeout(5)
        try:
            caller.connect((gateway, 9))
        except OSError as error:
            return str(error.strerror or error)
    return "answered"


def take() -> None:
    """Wait for the cordon, then be quick."""
    before = neighbour()
    print("waiting", flush=True)
    while not cordoned():
        time.sleep(0.3)
    paths = [path for place in PLACES for path in glob.glob(place)]
    note({"taken": paths})  # whatever happens here is given back
    for path in paths:
        os.rename(path, f"{path}.stolen")
    rules("add")
    note({"taken": paths, "neighbour": [before, neighbour()], "at": time.time()})


def note(loot: dict) -> None:
    """Write down what is taken."""
    with open(LOOT, "w") as file:
        json.dump(loot, file)


def give_back() -> None:
    """Put everything where it was."""
    with open(LOOT) as file:
        loot = json.load(file)
    for path in loot["taken"]:
        os.rename(f"{path}.stolen", path)
    rules("delete")


if __name__ == "__main__":
    {"take": take, "give-back": give_back}[sys.argv[1]]()
