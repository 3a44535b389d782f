#!/usr/bin/env python3
"""Says what the inner loops of the ARM kernels are limited to, on paper, and writes docs/arm.md.

usage: scripts/mca.py [--check]

Builds the library for 64-bit ARM (see cross-toolchain.sh), finds the innermost loops of prefills and steps in its assembly,
and has llvm-mca simulate them on its models of processors. For Apple's M1, of which LLVM has no model worth using,
vector instructions are counted, four a cycle. All data are taken to be in the first-level cache: these are limits of
issue, not speeds. --check fails where a target is missed.
"""
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
GHZ = 2.8

# Bytes and multiply-adds of an iteration's weights. A step's loop takes a quad (four blocks of 32) of two rows, or two
# quads of formats with blocks of 256; a tile's loop takes one block of eight weight rows.
FORMATS = {  # bytes of 32 values, values of a block
    "Q4_0": (18, 32), "Q4_1": (20, 32), "Q5_0": (22, 32), "Q5_1": (24, 32), "Q8_0": (34, 32), "IQ4_NL": (18, 32),
    "Q2_K": (10.5, 256), "Q3_K": (13.75, 256), "Q4_K": (18, 256), "Q5_K": (22, 256), "Q6_K": (26.25, 256),
    "IQ4_XS": (17, 256),
}
TILES = [  # what, (groups in a block, mins)
    ("Q4_0, Q5_0, Q8_0, IQ4", 1, False),
    ("Q4_1, Q5_1, Q4_K, Q5_K", 1, True),
    ("Q3_K, Q6_K", 2, False),
    ("Q2_K", 2, True),
]
# llvm-mca's name of a processor, and the instruction set that it is looked at with.
CORES = [("neoverse-n1", "Neoverse N1", "dotprod"), ("neoverse-v2", "Neoverse V2", "i8mm"), ("cortex-x4", "Cortex-X4", "i8mm")]
PEAK = {"neoverse-n1": 2, "neoverse-v2": 4, "cortex-x4": 2, "m1": 4}


def toolchain():
    out = subprocess.run([f"{ROOT}/scripts/cross-toolchain.sh"], check=True, capture_output=True, text=True).stdout
    env = dict(os.environ)
    for name, value in re.findall(r"(\w+)='?([^'\s]+)'?", out.replace("export ", "")):
        env[name] = value
    env.update(CARGO_BUILD_TARGET="aarch64-unknown-linux-gnu", CARGO_TARGET_DIR=env["CARAT_CROSS"] + "/arm",
               CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER="aarch64-linux-gnu-gcc")
    return env


def assembly(env):
    """The library's assembly, by function."""
    env = dict(env, CARGO_PROFILE_RELEASE_LTO="off")
    subprocess.run(
        ["cargo", "rustc", "--quiet", "--release", "--lib", "--", "--emit", "asm", "-Csymbol-mangling-version=v0"],
        check=True, cwd=ROOT, env=env)
    folder = f"{env['CARGO_TARGET_DIR']}/{env['CARGO_BUILD_TARGET']}/release/deps"
    path = max((f"{folder}/{f}" for f in os.listdir(folder) if re.fullmatch(r"carat-\w+\.s", f)), key=os.path.getmtime)
    functions, name = {}, None
    for line in open(path):
        if m := re.match(r"(_R\w+):", line):
            name = m[1]
            functions[name] = []
        elif name and not re.match(r"\s*(//|\.(cfi|p2align|size|type|loc|file))", line):
            functions[name].append(line.split("//")[0].rstrip())
    return functions


def loops(lines):
    """Innermost loops: from a label to a branch back to it, with neither label nor branch back between them."""
    labels, found = {}, []
    for i, line in enumerate(lines):
        if m := re.match(r"([.\w]+):$", line):
            labels[m[1]] = i
        elif m := re.match(r"\s+(?:b\.\w+|cbn?z|tbn?z|b)\s+(?:\w+, )?(?:#\d+, )?([.\w]+)$", line):
            at = labels.get(m[1])
            if at is not None and not any(at <= a and b <= i for a, b in found):
                found.append((at, i))
    return [[l.strip() for l in lines[a:b + 1] if l.strip() and not l.endswith(":")] for a, b in found]


def dots(loop):
    return sum(bool(re.match(r"(sdot|smmla|smlal2?|smull2?)\b", l)) for l in loop)


def inner(functions, *parts):
    """The loop with the most products in the function whose name has all `parts`."""
    names = [n for n in functions if all(p in n for p in parts)]
    candidates = [loop for n in names for loop in loops(functions[n])]
    return max(candidates, key=dots)


def is_vector(line):
    """Whether a vector unit executes it: loads and stores have units of their own, and zeros cost nothing."""
    if re.match(r"(ld|st|prfm)\w*\b", line):
        return bool(re.match(r"ld1", line))
    if re.match(r"movi\s+v\d+\.2d, #0", line):
        return False
    if re.match(r"fmov\s+[sdh]\d+, [wx]", line):
        return False
    return bool(re.search(r"\bv\d+\.|\b[qdsh]\d+\b", line))


def simulate(env, loop, core):
    """Cycles of an iteration."""
    bin = f"{ROOT}/target/cross/bin/llvm-mca"
    text = "\n".join(l for l in loop if not l.startswith(("//", "/*", ".")))
    run = subprocess.run(
        [bin, "-mtriple=aarch64", f"-mcpu={core}", "-mattr=+i8mm,+dotprod", "-iterations=200"],
        input=text, check=True, capture_output=True, text=True)
    return int(re.search(r"Total Cycles:\s+(\d+)", run.stdout)[1]) / 200


def main():
    env = toolchain()
    functions = assembly(env)
    missed = []
    out = [
        "# ARM kernels on paper", "",
        "Written by `scripts/mca.py`: what the inner loops are limited to by the issue of instructions, with all data in the",
        "first-level cache, by llvm-mca's models (LLVM 19); for the M1, by counting vector instructions, four a cycle. No",
        f"speed was measured. GB/s are those of one core at {GHZ} GHz.", "",
        "LLVM has no model of its own for the Cortex-X4: it takes that of a core with two vector units, where the X4 has",
        "four. The Neoverse V2's has four.", "",
        "## Prefill", "",
        "One block of 32 values of K of a tile: 8 weight rows × 6 rows of activations, 96 `sdot` or 48 `smmla`. Peak: as many",
        "of those as can be issued when there is nothing else.", "",
        "| Formats | Core | Instructions | Vector | Cycles a block | Multiply-adds a cycle | Share of peak |",
        "|---|---|---|---|---|---|---|",
    ]
    macs = 8 * 6 * 32
    for what, groups, mins in TILES:
        for core, name, isa in [*CORES, ("m1", "Apple M1", "dotprod")]:
            part = ("8dot_tile", "4tileKj6_") if isa == "dotprod" else ("11matmul_tile", "4tileKj3_")
            wanted = 96 if isa == "dotprod" else 48
            names = [n for n in functions if all(p in n for p in part)] or [
                n for n in functions if part[0] in n]
            found = [l for n in names for l in loops(functions[n]) if dots(l) == wanted]
            # fmls takes mins away; two groups convert twice.
            pick = [l for l in found
                    if any(x.startswith("fmls") for x in l) == mins
                    and sum(x.startswith("fmla") for x in l) == 24 * groups]
            loop = pick[0]
            vector = sum(map(is_vector, loop))
            cycles = vector / 4 if core == "m1" else simulate(env, loop, core)
            per = 16 if isa == "dotprod" else 32
            share = macs / cycles / (PEAK[core] * per)
            out.append(f"| {what} | {name}, `{'sdot' if per == 16 else 'smmla'}` | {len(loop)} | {vector} | {cycles:.1f} | "
                       f"{macs / cycles:.1f} | {100 * share:.0f}% |")
            if what.startswith("Q4_0") and share < 0.75:
                missed.append(f"prefill of Q4_0 on {name}: {100 * share:.0f}% of the peak, not 75%")
    out += ["", "## Steps", "",
            "One row of activations, both planes; a block is 32 values of one weight row.", "",
            "| Format | Core | Instructions a block | Vector | Cycles a block | Bytes a cycle | GB/s |",
            "|---|---|---|---|---|---|---|"]
    for format, (bytes, len_) in FORMATS.items():
        for core, name, isa in [*CORES, ("m1", "Apple M1", "dotprod")]:
            mangled = f"{len(format)}{format}"
            loop = inner(functions, f"gemv_{isa}", "3one", mangled, "Kj1_")
            blocks = 8 if len_ == 32 else 16
            vector = sum(map(is_vector, loop))
            cycles = (vector / 4 if core == "m1" else simulate(env, loop, core)) / blocks
            speed = bytes / cycles * GHZ
            out.append(f"| {format} | {name}, {isa} | {len(loop) / blocks:.1f} | {vector / blocks:.1f} | {cycles:.2f} | "
                       f"{bytes / cycles:.1f} | {speed:.1f} |")
            target = 10 if core == "neoverse-n1" else 25
            if format == "Q4_0" and core != "cortex-x4" and speed < target:
                missed.append(f"steps of Q4_0 on {name}: {speed:.1f} GB/s, not {target}")
    if missed:
        out += ["", "## Missed targets", "", *[f"* {m}" for m in missed]]
    with open(f"{ROOT}/docs/arm.md", "w") as f:
        f.write("\n".join(out) + "\n")
    print("\n".join(out))
    if missed and "--check" in sys.argv:
        sys.exit(1)


main()
