"""What a token costs in a stream, beside the library's own callback: microseconds a token.

usage: stream.py MODEL.gguf [ROUNDS]
"""

import statistics
import sys
import time

import carat
from carat._native import ffi, lib


@ffi.callback("carat_piece_fn")
def nothing(user_data, piece):
    """Take a piece as a program in C does, as near as Python comes to it."""
    return 1


def seconds(generate, model, prompt, tokens):
    """Seconds a token, without the prompt."""
    with carat.Session(model, context=len(prompt) + tokens + 1) as session:
        session.prefill(prompt)
        began = time.perf_counter()
        n = generate(session, tokens)
        took = time.perf_counter() - began
        assert n == tokens, n
        return took / n


def in_c(callback):
    """A generation by the C interface alone: one call."""

    def generate(session, tokens):
        options = ffi.new("carat_generate_options *")
        lib.carat_generate_options_init(options, ffi.sizeof(options[0]))
        options.max_tokens, options.temperature, options.ignore_end = tokens, 0, 1
        summary = ffi.new("carat_summary *")
        lib.carat_summary_init(summary, ffi.sizeof(summary[0]))
        with session._handle as pointer:
            status = lib.carat_session_generate(pointer, ffi.NULL, 0, options, callback, ffi.NULL, summary, ffi.NULL)
        assert status == 0, status
        return summary.generated_tokens

    return generate


def by_stream(session, tokens):
    """A generation by the iterator."""
    stream = session.generate(max_tokens=tokens, temperature=0, ignore_end=True)
    return sum(1 for piece in stream if piece.token is not None)


def by_function(session, tokens):
    """A generation by on_piece."""
    summary = session.generate(max_tokens=tokens, temperature=0, ignore_end=True, on_piece=lambda piece: None)
    return summary.generated_tokens


def main():
    """Measure in turn, so that all have the same weather."""
    path, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 15
    ways = {
        "C, no callback": in_c(ffi.NULL),
        "C, callback in Python": in_c(nothing),
        "callback": by_function,
        "iterator": by_stream,
    }
    took = {name: [] for name in ways}
    with carat.Model(path, threads=1) as model:
        for _ in range(rounds):
            for name, generate in ways.items():
                took[name].append(seconds(generate, model, [2, 300, 301], 200))
    middle = {name: statistics.median(values) * 1e6 for name, values in took.items()}
    for name in ("callback", "iterator"):
        print(f"Python: {name}: {middle[name]:.1f}")
    for name in ("C, no callback", "C, callback in Python"):
        print(f"beside them, {name}: {middle[name]:.1f} µs")


if __name__ == "__main__":
    main()
