#!/usr/bin/env python3
"""Mean Kullback-Leibler divergence from exact arithmetic over tests/data/kl, of carat and of llama.cpp.

Needs numpy, and llama-cpp-python for --llama (pip install numpy llama-cpp-python; it compiles for some minutes).
Takes a few minutes, and 2.5 GB in the directory for temporary files.

    cargo build --release -p carat-cli
    scripts/compare_kl.py --llama -m MODEL.gguf
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
CORPUS = ROOT / "tests" / "data" / "kl"


def log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits.astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def divergence(exact: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """KL(exact || other), and whether the likeliest token is the same, at each position."""
    kl, same = [], []
    for first in range(0, len(exact), 32):  # 32 rows of f64 at a time
        p, q = log_softmax(exact[first : first + 32]), log_softmax(other[first : first + 32])
        kl.append((np.exp(p) * (p - q)).sum(axis=1))
        same.append(p.argmax(axis=1) == q.argmax(axis=1))
    return np.concatenate(kl), np.concatenate(same)


def carat(args: argparse.Namespace, ids: Path, out: Path, *options: str) -> np.ndarray:
    subprocess.run(
        [args.carat, "logits", "-m", args.model, "-t", str(args.threads), "--ids", ids, "--out", out, *options],
        check=True,
    )
    n = len(ids.read_text().split())
    return np.memmap(out, dtype="<f4", mode="r").reshape(n, -1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("--carat", default=ROOT / "target" / "release" / "carat")
    parser.add_argument("names", nargs="*", help="texts to take, such as en and zh; all unless named")
    parser.add_argument("--llama", action="store_true", help="measure llama.cpp too")
    args = parser.parse_args()

    llama = None
    if args.llama:
        from llama_cpp import Llama

        llama = Llama(
            args.model, n_ctx=1024, n_batch=1024, n_ubatch=512, n_threads=args.threads, logits_all=True, verbose=False
        )

    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for ids in sorted(CORPUS.glob("*.ids")):
        if args.names and ids.stem not in args.names:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            out = Path(scratch)
            exact = carat(args, ids, out / "exact", "--exact")
            others = {
                "carat, prefilled": carat(args, ids, out / "prefilled"),
                "carat, stepped": carat(args, ids, out / "stepped", "--batch", "1"),
            }
            if llama:
                tokens = [int(i) for i in ids.read_text().split()]
                llama.reset()
                llama.eval(tokens)
                others["llama.cpp, prefilled"] = np.array(llama.scores[: len(tokens)])
            for name, logits in others.items():
                kl, same = divergence(exact, logits)
                found.setdefault(name, []).append((kl, same))
                print(f"{ids.stem:<5} {name:<22} mean KL {kl.mean():.6f}  same top-1 {same.mean():7.2%}", flush=True)
    for name, parts in found.items():
        kl = np.concatenate([kl for kl, _ in parts])
        same = np.concatenate([same for _, same in parts])
        print(f"{'all':<5} {name:<22} mean KL {kl.mean():.6f}  same top-1 {same.mean():7.2%}  ({len(kl)} positions)")


if __name__ == "__main__":
    main()
