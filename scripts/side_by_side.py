#!/usr/bin/env python3
"""carat and llama.cpp side by side: pp512 and tg64 of the same file, taking turns in one run.

Needs numpy and llama-cpp-python (pip install numpy llama-cpp-python; it compiles for some minutes).

    cargo build --release -p carat-cli
    scripts/side_by_side.py -m MODEL.gguf -t 2 -r 5
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def carat(args: argparse.Namespace) -> tuple[dict[str, float], dict]:
    out = subprocess.run(
        [args.carat, "bench", "--json", "-m", args.model, "-t", str(args.threads)]
        + ["-p", str(args.prompt), "-n", str(args.generate), "-r", "3"],
        check=True,
        stdout=subprocess.PIPE,
    ).stdout
    report = json.loads(out)
    return {r["test"]: r["tokens_per_s"]["median"] for r in report["results"]}, report


def llama_process(args: argparse.Namespace) -> dict[str, float]:
    """In a process of its own, so that its threads are gone when carat's turn comes."""
    out = subprocess.run(
        [sys.executable, __file__, "--llama-only", "-m", args.model, "-t", str(args.threads)]
        + ["-p", str(args.prompt), "-n", str(args.generate)],
        check=True,
        stdout=subprocess.PIPE,
    ).stdout
    return json.loads(out)


def llama_only(args: argparse.Namespace) -> dict[str, float]:
    """The work of `carat bench`: a prompt with the logits of its last token; tokens from an empty context."""
    import llama_cpp

    model = llama_cpp.Llama(
        args.model,
        n_ctx=max(args.prompt, args.generate) + 8,
        n_batch=512,
        n_ubatch=512,
        n_threads=args.threads,
        n_threads_batch=args.threads,
        verbose=False,
    )
    vocab = model.n_vocab()
    context, memory = model.ctx, llama_cpp.llama_get_memory(model.ctx)

    def tokens(n: int) -> list[int]:
        first = min(vocab, 512) // 2
        return [first + (i * 7919 + 13) % (vocab - first) for i in range(n)]

    def decode(ids: list[int]) -> None:
        array = (llama_cpp.llama_token * len(ids))(*ids)
        if llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(array, len(ids))) != 0:
            sys.exit("llama_decode failed")

    def measure(n: int, batch: int) -> float:
        rates = []
        for repetition in range(4):  # the first warms up
            llama_cpp.llama_memory_clear(memory, True)
            ids = tokens(n)
            began = time.perf_counter()
            for first in range(0, n, batch):
                decode(ids[first : first + batch])
            llama_cpp.llama_synchronize(context)
            if repetition:
                rates.append(n / (time.perf_counter() - began))
        return statistics.median(rates)

    return {
        f"pp{args.prompt}": measure(args.prompt, 512),
        f"tg{args.generate}": measure(args.generate, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("-p", "--prompt", type=int, default=512)
    parser.add_argument("-n", "--generate", type=int, default=64)
    parser.add_argument("-r", "--rounds", type=int, default=3)
    parser.add_argument("--carat", default=ROOT / "target" / "release" / "carat")
    parser.add_argument("--llama-only", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.llama_only:
        print(json.dumps(llama_only(args)))
        return

    ours, theirs, report = [], [], {}
    for turn in range(args.rounds):
        found, report = carat(args)
        ours.append(found)
        theirs.append(llama_process(args))
        print(f"round {turn + 1}: carat {ours[-1]}, llama.cpp {theirs[-1]}", file=sys.stderr)
    limits = report["limits"]
    print(f"{report['isa']}, {report['threads']} threads; limits {limits}")
    print(f"{'test':<8} {'carat':>10} {'llama.cpp':>10} {'ratio':>7}   tokens/s, median of {args.rounds} rounds")
    for test in ours[0]:
        a = statistics.median(r[test] for r in ours)
        b = statistics.median(r[test] for r in theirs)
        print(f"{test:<8} {a:>10.2f} {b:>10.2f} {a / b:>7.2f}")


if __name__ == "__main__":
    main()
