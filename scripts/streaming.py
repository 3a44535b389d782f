#!/usr/bin/env python3
"""What streaming costs in each language, beside the library's own speed: writes the table of docs/bindings.md.

usage: scripts/streaming.py [MODEL]

Kotlin's program is that of the last `make test-kotlin`, Swift's that of the last `make test-swift`; without them they are
left out. All others are built first. Then each is run several times, in turn, so that whatever else the machine does
disturbs all alike. Each prints lines of LANGUAGE: WAY: MICROSECONDS A TOKEN, its median, with one thread; the table has
the median of the runs. The model is tiny, so that next to nothing hides what the languages add. The aim is 3% at 200
tokens a second.
"""

import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / os.environ.get("CARGO_TARGET_DIR", "target")
OUT = TARGET / "streaming"
PAGE = ROOT / "docs/bindings.md"
RUNS = 5
AIM = 150  # microseconds


def run(*command, **more):
    return subprocess.run([str(c) for c in command], cwd=ROOT, check=True, text=True, **more)


def build():
    """The commands, to which the model's path is added."""
    prefix = OUT / "installed"
    run("scripts/install.sh", prefix)
    run("cargo", "bench", "--quiet", "--bench", "stream", "--no-run")
    flags = ["-O2", "-I", prefix / "include"]
    libraries = ["-L", prefix / "lib", "-lcarat", f"-Wl,-rpath,{prefix / 'lib'}", "-lm"]
    run("cc", "-std=c99", *flags, "tests/c/stream.c", *libraries, "-o", OUT / "stream-c")
    run("c++", "-std=c++17", *flags, "tests/c/stream.cpp", *libraries, "-o", OUT / "stream-cpp")
    run("python3", "-m", "venv", OUT / "venv")
    run(OUT / "venv/bin/pip", "install", "--quiet", "--force-reinstall", "./bindings/python")
    python = [OUT / "venv/bin/python", "bindings/python/bench/stream.py"]
    commands = [["cargo", "bench", "--quiet", "--bench", "stream", "--"], [OUT / "stream-c"], [OUT / "stream-cpp"], python]
    kotlin = TARGET / "kotlin"
    if (kotlin / "tests.jar").exists():
        native = run("scripts/jni.sh", stdout=subprocess.PIPE).stdout.strip()
        [compiler] = kotlin.glob("compiler-*/node_modules/kotlin-compiler/lib")
        jars = [kotlin / "tests.jar", kotlin / "carat.jar", compiler / "kotlinx-coroutines-core-jvm.jar"]
        classes = ":".join(map(str, [*jars, compiler / "kotlin-stdlib.jar"]))
        commands.append(["java", f"-Djava.library.path={native}", "-cp", classes, "StreamKt"])
    swift = TARGET / "swift/build/release/StreamBench"
    if swift.exists():
        packages = (TARGET / "swift-root/.packages").read_text().strip()
        commands.append(["scripts/in-debian13.sh", TARGET / "swift-root", packages, swift])
    return commands


def measure(commands, model):
    """Microseconds a token of each language and way."""
    took = {}
    for _ in range(RUNS):
        for command in commands:
            printed = run(*command, model, stdout=subprocess.PIPE).stdout
            if command[0] == "scripts/in-debian13.sh":
                # It measures C's calls too, as Swift makes them.
                printed = re.sub("^C: ", "Swift: C's ", printed, flags=re.M)
            for language, way, microseconds in re.findall(r"^(\S+): ([^:]+): ([\d.]+)$", printed, re.M):
                took.setdefault((language, way), []).append(float(microseconds))
    return {key: statistics.median(values) for key, values in took.items()}


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    model = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / "tests/data/tiny-gemma3.gguf"
    commands = build()
    took = measure(commands, model)
    own = took["Rust", "callback"]
    rows = ["| language | by | µs a token | over Rust |", "|---|---|---|---|"]
    for (language, way), value in took.items():
        over = "" if language == "Rust" else f"{value - own:+.1f}"
        rows.append(f"| {language} | {way} | {value:.1f} | {over} |")
    text = "\n".join(rows)
    print(text)
    begin, end = "<!-- streaming: made by scripts/streaming.py -->\n", "<!-- end of streaming -->"
    before, found, rest = PAGE.read_text(encoding="utf-8").partition(begin)
    if not found:
        sys.exit(f"{PAGE} has no part for streaming")
    PAGE.write_text(before + begin + "\n" + text + "\n\n" + end + rest.partition(end)[2], encoding="utf-8")
    slow = [key for key, value in took.items() if value - own > AIM]
    if slow:
        sys.exit(f"more than {AIM} µs over Rust: {slow}")


main()
