"""docs/performance.md and its charts, drawn from what scripts/bench.py measured."""

import html
import statistics
from pathlib import Path

COLOURS = {"carat": "#1d5fbf", "llama.cpp": "#8d96a8", "ik_llama.cpp": "#c99a2e"}
# What is shown of a measurement: title, its sizes, the clock, tokens on it.
PROMPTS = [("prompt of 512", "512+0", "prompt_s", 512), ("prompt of 4096", "4096+64", "prompt_s", 4096)]
DECODES = [("64 tokens", "0+64", "generate_s", 64), ("64 tokens after 4096", "4096+64", "generate_s", 64)]


class Run:
    """Medians of a run's rounds."""

    def __init__(self, raw: dict):
        self.raw = raw
        self.engines = [e for e in COLOURS if not raw["engines"][e].get("error")]
        self.peers = self.engines[1:]
        self.by_key: dict[str, list[dict]] = {}
        for job, result in raw["results"].items():
            _, key = job.split(" ", 1)
            self.by_key.setdefault(key, []).append(result)
        self.rounds = 1 + max(int(job.split()[0]) for job in raw["results"])

    def results(self, key: str) -> list[dict]:
        return [r for r in self.by_key.get(key, []) if not r.get("error") and not r.get("skipped")]

    def rates(self, file: str, threads: int, test: tuple, engine: str) -> list[float]:
        """Tokens a second, of each round."""
        _, sizes, clock, tokens = test
        found = self.results(f"speed {file} {threads} {sizes} {engine}")
        return [tokens / statistics.median(r[clock]) for r in found if r.get(clock)]

    def rate(self, file: str, threads: int, test: tuple, engine: str) -> float | None:
        return median(self.rates(file, threads, test, engine))

    def limits(self, threads: int) -> dict[str, float]:
        """The best that was seen in the run: a limit is what cannot be exceeded."""
        found = [r for key in self.by_key if key.startswith("limits ") and key.endswith(f" {threads}") for r in self.results(key)]
        names = ("read_bytes_per_s", "dot_macs_per_s", "fma_macs_per_s")
        return {name: max((r[name] for r in found), default=0) for name in names}

    def limit(self, file: str, threads: int, test: tuple) -> float | None:
        """Tokens a second that the machine's limits allow."""
        _, sizes, clock, tokens = test
        limits = self.limits(threads)
        work = self.raw["files"][file]["work"].get(sizes)
        if not work or not all(limits.values()):
            return None
        if clock == "generate_s":
            return tokens * limits["read_bytes_per_s"] / work["generate"]["bytes"]
        prompt = work["prompt"]
        return tokens / (prompt["dots"] / limits["dot_macs_per_s"] + prompt["fmas"] / limits["fma_macs_per_s"])

    def first(self, file: str, threads: int, state: str, engine: str) -> float | None:
        return median([r["first_s"] for r in self.results(f"first {file} {threads} {state} {engine}")])

    def first_limit(self, file: str, threads: int, state: str) -> float | None:
        """Seconds to read the file once in order: from memory, or from the disk."""
        if state == "cold":
            return median([r["read_s"] for r in self.results(f"read {file} {threads}")])
        read = self.limits(threads)["read_bytes_per_s"]
        work = next(iter(self.raw["files"][file]["work"].values()))
        weights = self.raw["files"][file]["work"].get("0+64", work)["generate"]["bytes"] / 64
        return weights / read if read else None

    def memory(self, file: str, threads: int, engine: str, name: str) -> float | None:
        found = []
        for sizes in ("512+0", "4096+64"):
            found += [r[name] for r in self.results(f"speed {file} {threads} {sizes} {engine}")]
            if found:
                break
        return median(found)


def median(values: list[float]) -> float | None:
    return statistics.median(values) if values else None


def figures(value: float | None) -> str:
    """Three digits."""
    if value is None:
        return "–"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def table(head: list[str], rows: list[list[str]], words: int = 2) -> list[str]:
    """The first `words` columns hold words, the others figures."""
    align = [":--" if i < words else "--:" for i in range(len(head))]
    return ["| " + " | ".join(row) + " |" for row in [head, align, *rows]]


# ---------------------------------------------------------------------------------------------------------- charts


def chart(title: str, groups: list[dict], unit: str, path: Path, per_limit: bool) -> None:
    """Horizontal bars, a group for each file and test, with the group's limit as a line.

    With `per_limit` every group has a scale of its own, on which its limit is the same line; else all share one.
    """
    left, width, right, bar, gap, top = 216, 420, 130, 17, 20, 66
    legend = [e for e in COLOURS if any(label == e for g in groups for label, *_ in g["bars"])]
    height = top + sum(len(g["bars"]) * bar + gap for g in groups) + 14
    total = left + width + right
    svg = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{total}" height="{height}" viewBox="0 0 {total} {height}" role="img">',
        f"<title>{html.escape(title)}</title>",
        "<style>text{font:12px system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;fill:#1c2230}"
        ".v{paint-order:stroke;stroke:#fff;stroke-width:3px}.h{font-size:15px;font-weight:600}.s{fill:#5a6375;font-size:11px}.l{fill:#b3261e;font-size:11px}</style>",
        f'<rect width="{total}" height="{height}" fill="#ffffff"/>',
        f'<text class="h" x="14" y="24">{html.escape(title)}</text>',
    ]
    x = 14
    for name in legend:
        svg.append(f'<rect x="{x}" y="36" width="11" height="11" fill="{COLOURS[name]}"/>')
        svg.append(f'<text x="{x + 16}" y="46">{name}</text>')
        x += 34 + 7 * len(name)
    svg.append(f'<path d="M{x} 42h18" stroke="#b3261e" stroke-width="2" stroke-dasharray="4 3"/>')
    svg.append(f'<text x="{x + 24}" y="46">limit</text>')

    shared = max((max([g["limit"] or 0, *(sum(parts) for _, parts, _ in g["bars"])]) for g in groups), default=1)
    y = top
    # Values lie over the lines.
    late = []
    for g in groups:
        tallest = max([g["limit"] or 0, *(sum(parts) for _, parts, _ in g["bars"])]) or 1
        scale = width / (tallest if per_limit else shared)
        end = y + len(g["bars"]) * bar
        svg.append(f'<text x="{left - 10}" y="{y + 14}" text-anchor="end">{html.escape(g["name"])}</text>')
        svg.append(f'<text class="s" x="{left - 10}" y="{y + 29}" text-anchor="end">{html.escape(g["test"])}</text>')
        svg.append(f'<path d="M{left} {y - 3}V{end + 1}" stroke="#c5cad4"/>')
        for label, parts, text in g["bars"]:
            x = float(left)
            for i, part in enumerate(parts):
                fade = "" if i == 0 else ' fill-opacity="0.45"'
                svg.append(
                    f'<rect x="{x:.1f}" y="{y}" width="{part * scale:.1f}" height="{bar - 4}" fill="{COLOURS[label]}"{fade}/>'
                )
                x += part * scale
            late.append(f'<text class="v" x="{x + 5:.1f}" y="{y + 11}">{html.escape(text)}</text>')
            y += bar
        if g["limit"]:
            x = left + g["limit"] * scale
            svg.append(
                f'<path d="M{x:.1f} {end - len(g["bars"]) * bar - 3}V{end + 1}" stroke="#b3261e" stroke-width="1.5" stroke-dasharray="4 3"/>'
            )
            svg.append(f'<text class="l" x="{x + 4:.1f}" y="{end + 10}">{figures(g["limit"])} {unit}</text>')
        y += gap
    svg += [*late, "</svg>"]
    path.write_text("\n".join(svg) + "\n")


def speed_groups(run: Run, tests: list[tuple], threads: int) -> list[dict]:
    groups = []
    for file, about in run.raw["files"].items():
        for test in tests:
            bars = [(e, [r], figures(r)) for e in run.engines if (r := run.rate(file, threads, test, e))]
            if bars:
                limit = run.limit(file, threads, test)
                groups.append({"name": about["name"], "test": test[0], "bars": bars, "limit": limit})
    return groups


# ---------------------------------------------------------------------------------------------------------- tables


def speed_table(run: Run, tests: list[tuple]) -> list[str]:
    rows = []
    for file, about in run.raw["files"].items():
        for test in tests:
            for threads in run.raw["threads"]:
                rates = {e: run.rate(file, threads, test, e) for e in run.engines}
                if not any(rates.values()):
                    continue
                limit = run.limit(file, threads, test)
                best = max((rates[p] or 0 for p in run.peers), default=0)
                ours = rates["carat"]
                ratio = f"**{ours / best:.2f}**" if ours and best else "–"
                share = f"{100 * ours / limit:.0f} %" if ours and limit else "–"
                n = min(len(run.rates(file, threads, test, e)) for e in run.engines)
                cells = [figures(rates[e]) for e in run.engines]
                rows.append([about["name"], test[0], str(threads), *cells, ratio, figures(limit), share, str(n)])
    head = ["file", "tokens", "threads", *run.engines, "carat ÷ best peer", "limit", "carat's share", "rounds"]
    return table(head, rows)


def first_table(run: Run, threads: int) -> list[str]:
    rows = []
    for file, about in run.raw["files"].items():
        for state in ("warm", "cold"):
            times = {e: run.first(file, threads, state, e) for e in run.engines}
            if not any(times.values()):
                continue
            best = min((times[p] for p in run.peers if times[p]), default=None)
            ours = times["carat"]
            ratio = f"**{ours / best:.2f}**" if ours and best else "–"
            cells = [figures(times[e]) for e in run.engines]
            rows.append([about["name"], state, *cells, ratio, figures(run.first_limit(file, threads, state))])
    return table(["file", "page cache", *run.engines, "carat ÷ best peer", "limit"], rows)


def memory_table(run: Run, threads: int) -> list[str]:
    rows = []
    for file, about in run.raw["files"].items():
        cells = []
        for engine in run.engines:
            anonymous, total = (run.memory(file, threads, engine, f"{n}_bytes") for n in ("anonymous", "total"))
            cells.append(f"{anonymous / 1e6:.0f} / {total / 1e6:.0f}" if anonymous and total else "–")
        if any(cell != "–" for cell in cells):
            rows.append([about["name"], f"{about['bytes'] / 1e6:.0f}", *cells])
    return table(["file", "its size", *run.engines], rows)


def verdict(run: Run) -> list[str]:
    """In how many of the comparisons carat is ahead, and every one in which it is not."""
    ahead, behind = 0, []
    for file, about in run.raw["files"].items():
        for test in PROMPTS + DECODES:
            for threads in run.raw["threads"]:
                best = max((run.rate(file, threads, test, p) or 0 for p in run.peers), default=0)
                ours = run.rate(file, threads, test, "carat")
                if not ours or not best:
                    continue
                if ours >= best:
                    ahead += 1
                else:
                    kind = "" if test in PROMPTS else "decoding "
                    behind.append(f"{about['name']}, {kind}{test[0]}, threads: {threads}: {ours / best:.2f}")
        for state in ("warm", "cold"):
            threads = max(run.raw["threads"])
            best = min((t for p in run.peers if (t := run.first(file, threads, state, p))), default=0)
            ours = run.first(file, threads, state, "carat")
            if not ours or not best:
                continue
            if ours <= best:
                ahead += 1
            else:
                behind.append(f"{about['name']}, start to first token, {state}: {ours / best:.2f} of the time")
    lines = [f"carat is ahead of the best peer in {ahead} of {ahead + len(behind)} comparisons of speed."]
    if behind:
        lines += ["It is behind in:", "", *(f"* {b}" for b in behind)]
    return lines


def write(raw: dict, out: Path) -> None:
    """The page at `out`/performance.md and its charts in `out`/performance."""
    run, charts = Run(raw), out / "performance"
    charts.mkdir(parents=True, exist_ok=True)
    threads, m = max(raw["threads"]), raw["machine"]

    on = f"{threads} thread" + ("s" if threads > 1 else "")
    chart(f"Prompts: tokens a second, {on}", speed_groups(run, PROMPTS, threads), "tokens/s", charts / "prompts.svg", True)
    chart(f"Decoding: tokens a second, {on}", speed_groups(run, DECODES, threads), "tokens/s", charts / "decoding.svg", True)
    groups = []
    for file, about in raw["files"].items():
        for state in ("warm", "cold"):
            bars = [(e, [t], f"{t:.2f} s") for e in run.engines if (t := run.first(file, threads, state, e))]
            if bars:
                limit = run.first_limit(file, threads, state)
                groups.append({"name": about["name"], "test": f"{state} page cache", "bars": bars, "limit": limit})
    chart(f"Start of the process to its first token: seconds, {on}", groups, "s", charts / "start.svg", True)
    groups = []
    for file, about in raw["files"].items():
        bars = []
        for e in run.engines:
            anonymous, all_of_it = (run.memory(file, threads, e, f"{n}_bytes") for n in ("anonymous", "total"))
            if anonymous and all_of_it:
                parts = [anonymous / 1e6, max(all_of_it - anonymous, 0) / 1e6]
                bars.append((e, parts, f"{anonymous / 1e6:.0f} / {all_of_it / 1e6:.0f}"))
        if bars:
            groups.append({"name": about["name"], "test": "", "bars": bars, "limit": about["bytes"] / 1e6})
    chart("Peak memory: MB, anonymous (dark) and in all", groups, "MB: the file", charts / "memory.svg", True)

    engines = raw["engines"]
    page = [
        "# Performance",
        "",
        "Measured by `make bench`, which wrote this page; none of the figures is edited. Only ratios and shares of the",
        "limit carry over to other machines.",
        "",
        *verdict(run),
        "",
        "## The machine",
        "",
        f"{m['cpu']}{' (' + m['family'] + ')' if m['family'] else ''}, {m['cores']} cores"
        + (", a virtual machine" if m["virtual"] else "")
        + f"; {', '.join(m['caches'])}; {m['memory_bytes'] / 2**30:.0f} GiB of memory; {m['kernel']};",
        f"instructions: {', '.join(m['instructions']) or 'baseline'}. {raw['date']}; {'; '.join(c for c in m['compilers'] if c)}.",
        "",
        "Its limits, measured between the other measurements; the best of the run counts:",
        "",
        *table(
            ["threads", "instruction set", "reading memory, GB/s", "multiply-adds of bytes, 10⁹/s", "of f32, 10⁹/s"],
            [
                [str(t), isa(run), *(f"{run.limits(t)[n] / 1e9:.1f}" for n in ("read_bytes_per_s", "dot_macs_per_s", "fma_macs_per_s"))]
                for t in raw["threads"]
            ],
        ),
        "",
        "A prompt's limit is the time that its multiply-adds take at those rates: of bytes for the quantized matrices, of",
        "f32 for attention. Decoding's limit is the time to read each weight, and the keys and values of the context, once.",
        "",
        "## Prompts",
        "",
        "Tokens a second. ![Prompts](performance/prompts.svg)",
        "",
        *speed_table(run, PROMPTS),
        "",
        "## Decoding",
        "",
        "Tokens a second, one at a time. ![Decoding](performance/decoding.svg)",
        "",
        *speed_table(run, DECODES),
        "",
        *left_out(run),
        "## Start to first token",
        "",
        "Seconds from starting the process to its first token, after a prompt of 6 tokens, with the file in the page cache",
        f"(warm) and evicted from it (cold); {on}. The limit is reading once: the weights from memory, or the file from the",
        "disk, in order. ![Start](performance/start.svg)",
        "",
        *first_table(run, threads),
        "",
        "## Memory",
        "",
        "Peaks in MB while a prompt of 512 is processed with room for 4352 tokens: anonymous memory / in all. What is not",
        "anonymous is the mapped file, which processes share and the system can take back. The limit is one copy of the",
        "weights: the file. ![Memory](performance/memory.svg)",
        "",
        *memory_table(run, threads),
        "",
        "## How it was measured",
        "",
        f"Every measurement is a process of its own. Each round measures one after the other, {' · '.join(run.engines)}, on the same",
        f"file; shown are medians of the rounds ({run.rounds} at most). Before the clock runs, 64 tokens are processed and one is",
        "generated. The ids are the same for all, and the logits of the last token are ready at the end. Sampling is left",
        "out. "
        + ("Files of Gemma 2B have the published model's shapes and types with random weights (`carat synth`); speed does" if any(not f["real"] for f in raw["files"].values()) else ""),
        *(["not depend on the values. The 270M is the real one."] if any(not f["real"] for f in raw["files"].values()) else []),
        "",
        *table(
            ["engine", "version", "settings", "build"],
            [
                [name, engine["version"], settings(raw["settings"][name]), build(name, engine)]
                for name, engine in engines.items()
            ],
            4,
        ),
        "",
        "Flash attention is on. llama.cpp repacks weights when it loads them; ik_llama.cpp does so as it computes, and keeps",
        "the file mapped. Every engine has room for 4352 tokens and keys and values in f16; llama.cpp keeps only the window",
        "of windowed layers, as its own programs do.",
        "What the peers say of their builds:",
        "",
        *(f"* {name}: `{info}`" for name in run.peers if (info := system_info(run, name))),
        *(f"* {name} could not be built here: {e['error']}" for name, e in engines.items() if e.get("error")),
        "",
        "Every single measurement is in [raw.json](performance/raw.json).",
    ]
    (out / "performance.md").write_text("\n".join(page) + "\n")


def left_out(run: Run) -> list[str]:
    names = []
    for key, results in run.by_key.items():
        what, file, threads, *_ = key.split()
        if what == "speed" and any(r.get("skipped") for r in results):
            names.append(f"{run.raw['files'][file]['name']} on {threads}")
    if not names:
        return []
    listed = ", ".join(dict.fromkeys(names))
    return [
        f"Left out, since 4096 tokens would have taken an engine more than {run.raw['longest_s']:.0f} seconds: {listed} thread(s).",
        "",
    ]


def isa(run: Run) -> str:
    names = {r["isa"] for key in run.by_key if key.startswith("limits ") for r in run.results(key)}
    return ", ".join(sorted(names)) or "–"


def settings(values: dict[str, int]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


def build(name: str, engine: dict) -> str:
    if engine.get("error"):
        return "failed"
    return f"native: `{engine['native']}` in the build's record" if engine["native"] else "as it ships: kernels chosen at run time"


def system_info(run: Run, engine: str) -> str | None:
    for key, results in run.by_key.items():
        if key.endswith(f" {engine}"):
            for r in results:
                if r.get("about", {}).get("system_info"):
                    return r["about"]["system_info"]
    return None
