"""Runs on a practice node: takes compiler and network away as soon as the node is cordoned, gives them back later.

Usage: thief.py take | give-back
"""

import glob
import json
import os
import subprocess
import sys
import time
import urllib.request

CONFIG = "/etc/fleetdrv-lab.json"
LOOT = "/run/thief.json"
PLACES = ("/usr/lib*/gcc/*/*/cc1", "/usr/bin/make", "/usr/bin/*-linux-gnu-as", "/srv/packages", "/etc/resolv.conf")


def cordoned() -> bool:
    """Ask the API, by the kubelet's own way to it."""
    with open(CONFIG) as file:
        config = json.load(file)
    url = f"http://{config['api_host']}:{config['api_port']}/api/v1/nodes/{config['node']}"
    request = urllib.request.Request(url, headers={"Host": "localhost"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return bool(json.load(answer)["spec"].get("unschedulable"))


def take() -> None:
    """Wait for the cordon, then be quick."""
    print("waiting", flush=True)
    while not cordoned():
        time.sleep(0.3)
    paths = [path for place in PLACES for path in glob.glob(place)]
    route = subprocess.run(["ip", "route", "show", "default"], capture_output=True, text=True, check=True).stdout
    for path in paths:
        os.rename(path, f"{path}.stolen")
    subprocess.run(["ip", "route", "delete", "default"], check=True)
    with open(LOOT, "w") as file:
        json.dump({"taken": paths, "route": route.split(), "at": time.time()}, file)


def give_back() -> None:
    """Put everything where it was."""
    with open(LOOT) as file:
        loot = json.load(file)
    for path in loot["taken"]:
        os.rename(f"{path}.stolen", path)
    subprocess.run(["ip", "route", "replace", *loot["route"]], check=True)


if __name__ == "__main__":
    {"take": take, "give-back": give_back}[sys.argv[1]]()
