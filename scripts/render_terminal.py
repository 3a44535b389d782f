#!/usr/bin/env python3
"""Runs shell commands and draws what a terminal would show as an SVG picture.

    scripts/render_terminal.py OUT.svg COMMAND...

Standard output and standard error come as the command writes them; a line longer than the terminal is wrapped.
"""

import html
import re
import subprocess
import sys

COLUMNS = 148
CHAR, LINE, PAD, BAR = 8.4, 19, 16, 30


def wrap(line: str) -> list[str]:
    return [line[i : i + COLUMNS] for i in range(0, len(line), COLUMNS)] or [""]


def main() -> None:
    out, commands = sys.argv[1], sys.argv[2:]
    lines: list[tuple[str, str]] = []
    for command in commands:
        lines += [("prompt", part) for part in wrap("$ " + command)]
        shown = subprocess.run(
            command, shell=True, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ).stdout
        shown = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", shown).rstrip("\n")
        for line in shown.split("\n"):
            kind = "note" if line.startswith("carat: ") else "text"
            lines += [(kind, part) for part in wrap(line)]
        lines.append(("text", ""))
    lines.pop()

    width = round(COLUMNS * CHAR + 2 * PAD)
    height = BAR + 2 * PAD + LINE * len(lines)
    svg = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">',
        "<style>text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;"
        "white-space:pre}.text{fill:#e6e6e6}.prompt{fill:#8fd18f}.note{fill:#8a93a5}</style>",
        f'<rect width="{width}" height="{height}" rx="8" fill="#1b1e26"/>',
        *(
            f'<circle cx="{18 + 20 * i}" cy="17" r="6" fill="{colour}"/>'
            for i, colour in enumerate(("#ff5f57", "#febc2e", "#28c840"))
        ),
    ]
    for i, (kind, line) in enumerate(lines):
        y = BAR + PAD + LINE * i + 10
        # A width for each line keeps tables straight in any font.
        fixed = f' textLength="{len(line) * CHAR:.1f}"' if line else ""
        svg.append(
            f'<text class="{kind}" x="{PAD}" y="{y}" xml:space="preserve"{fixed}>{html.escape(line, quote=False)}</text>'
        )
    svg.append("</svg>")
    with open(out, "w", encoding="utf-8") as file:
        file.write("\n".join(svg) + "\n")


if __name__ == "__main__":
    main()
