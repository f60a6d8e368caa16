"""What goes wrong with repositories and what they offer, as data: texts, cause and remedy. Pure."""

from __future__ import annotations

from fleetdrv.finding import Finding, Retry, Rule, rule

CLOCK_WRONG = Finding(
    name="clock-wrong",
    rows=(10,),
    cause="The node's clock is wrong: what the repository has signed is not valid yet there.",
    remedy="On the node: timedatectl set-ntp true && timedatectl status; do not switch off Check-Date.",
    retry=Retry.AFTER_REMEDY,
)

REPOSITORY: tuple[Rule, ...] = (
    rule(
        Finding(
            name="repository-key",
            rows=(8,),
            cause="The repository is signed with key {key}, which this node does not have, or which has expired.",
            remedy="Give the repository's present key and its fingerprint in the playbook (`repository:`); for "
            "one of the node's own: install its keyring package and remove the old list.",
            retry=Retry.AFTER_REMEDY,
        ),
        r"(?:NO_PUBKEY|EXPKEYSIG|REVKEYSIG|KEYEXPIRED) (?P<key>[0-9A-F]{8,40})",
        r"^(?:E: )?The repository '[^'\n]*' is not signed",
        r"The following signatures (?:couldn't be verified|were invalid)",
        r"its fingerprint is \S+ not (?P<key>[0-9A-F]{40})",
    ),
    rule(
        Finding(
            name="mirror-sync",
            rows=(9,),
            cause="The mirror is being updated: its index and its files do not belong together yet.",
            remedy="Wait some minutes, then the same command again; on the node, if it stays: rm -rf "
            "/var/lib/apt/lists/* && apt-get update",
            retry=Retry.LATER,
        ),
        r"File has unexpected size \(\d+ != \d+\)\. Mirror sync in progress",
        r"Hash Sum mismatch",
    ),
    rule(CLOCK_WRONG, r"Release file for \S+ is not valid yet"),
    rule(
        Finding(
            name="repository-expired",
            cause="The repository's Release file has expired: the mirror is stale, or the node's clock is ahead.",
            remedy="Compare the clocks: date -u, here and on the node; then use a mirror that is kept up to date.",
            retry=Retry.AFTER_REMEDY,
        ),
        r"Release file for \S+ is expired",
    ),
    rule(
        Finding(
            name="headers-unavailable",
            rows=(12,),
            cause="The repositories do not offer {package}: the kernel was replaced by a newer one there.",
            remedy="Bring the node to the newest kernel and reboot it, or give it a snapshot mirror; on the "
            "node: apt-get update && apt-cache policy {package}",
            retry=Retry.AFTER_REMEDY,
        ),
        r"Unable to locate package (?P<package>linux-headers-\S+)",
        r"Couldn't find any package by (?:glob|regex) '(?P<package>linux-headers-[^'\n]+)'",
        r"Package '?(?P<package>linux-headers-[^\s']+)'? has no installation candidate",
    ),
    rule(
        Finding(
            name="package-unknown",
            cause="The repositories do not offer {package}.",
            remedy="On the node: apt-get update && apt-cache policy {package}; then mend the playbook's "
            "`packages:` or `repository:`.",
            retry=Retry.AFTER_REMEDY,
        ),
        r"Unable to locate package (?P<package>(?!linux-headers-)\S+)",
        r"Version '[^'\n]*' for '(?P<package>[^'\n]+)' was not found",
        r"Package '?(?P<package>(?!linux-headers-)[^\s']+)'? has no installation candidate",
    ),
    rule(
        Finding(
            name="phased-update",
            rows=(14,),
            cause="An update comes to some nodes first: this one is not among them yet.",
            remedy="Name the exact version in the playbook; or on all nodes: "
            'APT::Get::Always-Include-Phased-Updates "true";',
            retry=Retry.LATER,
        ),
        notices=(
            r"The following (?:packages have been kept back|upgrades have been deferred due to phasing)",
            r"\(phased \d+%\)",
        ),
    ),
    rule(
        Finding(
            name="lists-outdated",
            cause="The package is not there any more: the node's package lists are older than the mirror.",
            remedy="The same command again gets new lists; for the node's own: apt-get update",
            retry=Retry.LATER,
        ),
        r"Failed to fetch \S+ 404 ",
    ),
    rule(
        Finding(
            name="repository-unreachable",
            cause="A repository or proxy does not answer the node.",
            remedy="On the node: apt-get update; see DNS, proxy (apt-config dump | grep -i proxy) and firewall.",
            retry=Retry.LATER,
        ),
        r"Could not resolve '[^'\n]*'",
        r"Temporary failure resolving",
        r"Could not connect to \S+",
        r"Unable to connect to \S+",
        r"Failed to fetch (?!\S+ (?:404|File has|Hash Sum))\S+ ",
    ),
    rule(
        Finding(
            name="wrong-digest",
            cause="What arrived is not what the playbook or the repository names by its SHA-256.",
            remedy="Find out who changed it, before anything else; then mend the playbook's digest or the mirror.",
            retry=Retry.NO,
        ),
        r"its SHA-256 is (?:[0-9a-f]{64}|not known), not [0-9a-f]{64}",
    ),
)
