#!/usr/bin/env python3
"""Checks the licences of all dependencies against deny.toml's list, and advisories where that can be done.

Needs only cargo and Python 3.11. Where cargo-deny is installed it has the last word; advisories need it and a
connection to the advisory database, and are said to be unchecked otherwise.
"""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def allowed(expression: str, allow: set[str]) -> bool:
    """Whether an SPDX expression can be met with the allowed licences ("/" is an old way to write OR)."""
    tokens = re.findall(r"\(|\)|[^\s()]+(?:\s+WITH\s+[^\s()]+)?", expression.replace("/", " OR "))
    position = 0

    def any_of() -> bool:
        nonlocal position
        value = all_of()
        while position < len(tokens) and tokens[position] == "OR":
            position += 1
            value = all_of() or value
        return value

    def all_of() -> bool:
        nonlocal position
        value = one()
        while position < len(tokens) and tokens[position] == "AND":
            position += 1
            value = one() and value
        return value

    def one() -> bool:
        nonlocal position
        token = tokens[position]
        position += 1
        if token == "(":
            value = any_of()
            position += 1
            return value
        return re.sub(r"\s+", " ", token) in allow

    return any_of()


def main() -> int:
    policy = tomllib.loads((ROOT / "deny.toml").read_text())["licenses"]
    allow = set(policy["allow"])
    exceptions = {e["crate"]: set(e["allow"]) for e in policy["exceptions"]}
    metadata = json.loads(
        subprocess.run(
            ["cargo", "metadata", "--format-version=1", "--all-features", "--locked"],
            cwd=ROOT,
            check=True,
            stdout=subprocess.PIPE,
        ).stdout
    )
    bad = []
    for package in metadata["packages"]:
        licence = package["license"]
        if not licence or not allowed(licence, allow | exceptions.get(package["name"], set())):
            bad.append(f"{package['name']} {package['version']}: licence {licence!r} is not in deny.toml's list")
        if package["source"] and not package["source"].startswith("registry+"):
            bad.append(f"{package['name']} {package['version']}: comes from {package['source']}")
    for line in bad:
        print(f"licences: {line}", file=sys.stderr)
    if bad:
        return 1
    print(f"licences: {len(metadata['packages'])} packages, all allowed", file=sys.stderr)

    if shutil.which("cargo-deny") is None:
        print("licences: advisories NOT checked: cargo-deny is not installed", file=sys.stderr)
        return 0
    if subprocess.run(["cargo", "deny", "fetch", "db"], cwd=ROOT, stderr=subprocess.DEVNULL).returncode != 0:
        print("licences: advisories NOT checked: the database cannot be reached", file=sys.stderr)
        return subprocess.run(["cargo", "deny", "check", "licenses", "bans", "sources"], cwd=ROOT).returncode
    return subprocess.run(["cargo", "deny", "check"], cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
