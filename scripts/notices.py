#!/usr/bin/env python3
"""Writes THIRD-PARTY-NOTICES.txt: whose code the C library contains, and under which licences.

usage: scripts/notices.py [--check]
With --check nothing is written, and the exit code says whether the file is up to date. Needs only cargo and Python.
"""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "THIRD-PARTY-NOTICES.txt"

HEAD = """Third-party notices of carat's library

A program that links carat's static or shared library contains the code listed here as well as carat's own (whose
licence is in LICENSE-APACHE and LICENSE-MIT). Each is used under the MIT licence, which asks that its text go along.
The command line program and the tests contain more; this file is of the library alone.
"""

# One of each system that the library is built for.
TARGETS = [
    "x86_64-unknown-linux-gnu", "aarch64-linux-android", "aarch64-apple-ios", "x86_64-pc-windows-msvc",
    "wasm32-unknown-unknown",
]  # fmt: skip

# Of Rust's standard library and what it is made of; its versions are the tool chain's, not ours.
STD = """The Rust standard library (std, core, alloc), MIT or Apache-2.0: Copyright (c) The Rust Project Contributors.
In it: addr2line, gimli and object (Copyright (c) 2015 The Rust Project Developers and The gimli Developers),
cfg-if and rustc-demangle (Copyright (c) 2014 Alex Crichton), hashbrown (Copyright (c) 2016 Amanieu d'Antras), libc
(Copyright (c) 2014-2020 The Rust Project Developers), memchr (Copyright (c) 2015 Andrew Gallant), miniz_oxide
(Copyright (c) 2017 Frommi, 2017-2024 oyvindln) and adler2 (Copyright (C) Jonas Schievink), each MIT or a choice that
includes it. The text of the MIT licence is the one below.
"""


def cargo(*args: str) -> str:
    return subprocess.run(["cargo", *args], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def linked() -> list[tuple[str, str]]:
    """Names and versions of what the library links, on any system that it is built for."""
    tree = cargo(
        "tree", "--locked", "-p", "carat", "--features", "capi", "--edges", "normal,no-proc-macro",
        *(f"--target={target}" for target in TARGETS), "--prefix", "none", "--format", "{p}",
    )  # fmt: skip
    found = {tuple(re.match(r"(\S+) v(\S+)", line).groups()) for line in tree.splitlines() if line}
    return sorted(p for p in found if p[0] != "carat")


def main() -> int:
    packages = {
        (p["name"], p["version"]): p
        for p in json.loads(cargo("metadata", "--format-version=1", "--locked", "--features", "capi"))["packages"]
    }
    texts: dict[str, tuple[str, list[str]]] = {}
    for name, version in linked():
        package = packages[name, version]
        folder = Path(package["manifest_path"]).parent
        files = sorted(f for f in folder.iterdir() if re.match(r"LICEN[CS]E.*MIT", f.name, re.IGNORECASE))
        if "MIT" not in package["license"] or not files:
            print(f"notices: {name} {version} ({package['license']}) has no text of the MIT licence", file=sys.stderr)
            return 1
        text = files[0].read_text(encoding="utf-8").strip()
        key = hashlib.sha256(" ".join(text.split()).encode()).hexdigest()
        texts.setdefault(key, (text, []))[1].append(f"{name} {version}, {package['license']}: {package['repository']}")
    rule = "\n" + "-" * 100 + "\n\n"
    whole = rule.join([HEAD, STD] + ["\n".join(of) + "\n\n" + text + "\n" for text, of in texts.values()])
    if "--check" not in sys.argv[1:]:
        FILE.write_text(whole, encoding="utf-8")
    elif not FILE.exists() or FILE.read_text(encoding="utf-8") != whole:
        print(f"notices: {FILE.name} is out of date: run `make notices`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
