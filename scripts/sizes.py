#!/usr/bin/env python3
"""Holds what is built to its sizes: the one place that says how large each may be.

usage: scripts/sizes.py [--write] [--android] [PREFIX]

Looks at the libraries that scripts/install.sh put under PREFIX and, with --android, at those that scripts/android-native.sh
built; all as a release has them. One that is missing or larger than its limit is a failure. With --write their sizes go
to the table of docs/bindings.md, where the rest of it stays as it is.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/bindings.md"
JNI = ROOT / "bindings/kotlin/android/src/main/jniLibs"
BEGIN, END = "<!-- sizes: made by scripts/sizes.py -->\n", "<!-- end of sizes -->"
MB = 1 << 20

# What, where under PREFIX, how large it may be in MB. What is linked shared is what a user downloads and has promises;
# the static ones hold Rust's run-time too, of which a program gets what it needs: their limits catch what gets in unseen.
INSTALLED = [
    ("shared library, stripped", "lib/libcarat.so", 2),
    ("static library", "lib/libcarat.a", 16),
    ("prelinked object, in its archive", "lib/libcarat-prelinked.a", 4),
]
ANDROID = [("JNI library, Android arm64-v8a", "arm64-v8a", 2), ("JNI library, Android x86_64", "x86_64", 2)]


def row(what, size, limit):
    return f"| {what} | {size:,} | {size / MB:.2f} | {limit} |"


def write(made):
    """Replaces the rows of the page that were measured now."""
    before, found, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    if not found:
        sys.exit(f"{PAGE} has no part for sizes")
    old, _, after = rest.partition(END)
    kept = {name: line for line, name in re.findall(r"^(\| ([^|]+) \| [\d,]+ \|.*)$", old, re.M)}
    kept.update(made)
    rows = [kept[what] for what, _, _ in INSTALLED + ANDROID if what in kept]
    table = "\n".join(["| what | bytes | MB | at most |", "|---|---|---|---|", *rows])
    PAGE.write_text(f"{before}{BEGIN}\n{table}\n\n{END}{after}", encoding="utf-8")


def main():
    options = {a for a in sys.argv[1:] if a.startswith("--")}
    prefixes = [Path(a) for a in sys.argv[1:] if not a.startswith("--")]
    if options - {"--write", "--android"} or len(prefixes) > 1 or not (prefixes or "--android" in options):
        sys.exit(__doc__)
    files = [(what, prefixes[0] / at, limit) for what, at, limit in INSTALLED if prefixes]
    if "--android" in options:
        files += [(what, JNI / abi / "libcarat_jni.so", limit) for what, abi, limit in ANDROID]
    made, failed = {}, False
    for what, path, limit in files:
        if not path.exists():
            print(f"{what}: there is no {path}")
            failed = True
            continue
        size = path.stat().st_size
        made[what] = row(what, size, limit)
        print(f"{what}: {size:,} bytes of at most {limit} MB")
        if size > limit * MB:
            print(f"{what} is too large")
            failed = True
    if "--write" in options:
        write(made)
    sys.exit(failed)


main()
