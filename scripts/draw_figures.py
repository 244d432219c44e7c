"""Draws the figures of README and documentation: the training loop, and the demo's success before and after.

The numbers of the second figure are read from benchmarks/results/demo.md. `make docs` runs this; a test fails when a
picture is older than its numbers.
"""

from __future__ import annotations

import re
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
RESULTS = ROOT / "benchmarks" / "results" / "demo.md"

INK, SOFT, LINE, BLUE, GREEN, GREY = "#1f2937", "#475569", "#94a3b8", "#2563eb", "#059669", "#94a3b8"
# A white card with a border: legible on a light and on a dark page, whatever the reader's browser prefers.
HEAD = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" viewBox="0 0 {w} {h}" role="img" '
    'font-family="Helvetica, Arial, sans-serif" font-size="13">\n<title>{title}</title>\n'
    '<rect x="0.5" y="0.5" width="{wi}" height="{hi}" rx="10" fill="#ffffff" stroke="#cbd5e1"/>'
)
TIP = 'markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto"'
STROKE = f'fill="none" stroke="{SOFT}" stroke-width="1.6" marker-end="url(#tip)"'

STAGES = (
    ("1  Collect", "many episodes at once,", "each at its own pace"),
    ("2  Score", "the world's verdict,", "verifiers, judges"),
    ("3  Credit", "advantages by group,", "turn or token"),
    ("4  Update", "loss on the tokens", "that were sampled"),
    ("5  Sync", "new weights go", "to the engine"),
)


def text(
    x: float, y: float, words: str, *, size: int = 13, fill: str = INK, anchor: str = "start", bold: bool = False
) -> str:
    """One line of text at a point."""
    look = f'font-size="{size}" fill="{fill}" text-anchor="{anchor}"' + (' font-weight="bold"' if bold else "")
    return f'<text x="{x:g}" y="{y:g}" {look}>{escape(words)}</text>'


def opening(width: int, height: int, title: str) -> str:
    """The head of a picture: its size, its title for screen readers, its card."""
    return HEAD.format(w=width, h=height, wi=width - 1, hi=height - 1, title=escape(title))


def loop() -> str:
    """The training loop as a picture: five stages in a row and the way back, world and engine above."""
    width, height, box, gap = 900, 300, 148, 22
    out = [opening(width, height, "One training step: collect, score, credit, update, sync")]
    tip = f'<path d="M0 0 L8 4 L0 8 z" fill="{SOFT}"/>'
    out.append(f'<defs><marker id="tip" {TIP}>{tip}</marker></defs>')
    left = (width - 5 * box - 4 * gap) / 2
    above = (
        (left, "Engine", "vLLM or transformers samples the actions", BLUE),
        (width - left - 2.4 * box, "World", "browser, phone, code sandbox, text", GREEN),
    )
    for x, name, what, colour in above:
        wide = 2.4 * box
        out.append(f'<rect x="{x:g}" y="20" width="{wide:g}" height="52" rx="8" fill="#f8fafc" stroke="{colour}"/>')
        out.append(text(x + wide / 2, 42, name, size=14, anchor="middle", bold=True, fill=colour))
        out.append(text(x + wide / 2, 60, what, size=12, anchor="middle", fill=SOFT))
    middle = (left + 2.4 * box, above[1][0])
    out.append(arrow(middle[0] + 2, 38, middle[1] - 3, 38))
    out.append(arrow(middle[1] - 2, 56, middle[0] + 3, 56))
    out.append(arrow(left + box / 2, 72, left + box / 2, 117))
    out.append(text(left + box / 2 + 8, 98, "episodes: exact tokens, log-probs, faults marked", size=12, fill=SOFT))
    for number, (name, first, second) in enumerate(STAGES):
        x = left + number * (box + gap)
        out.append(f'<rect x="{x:g}" y="120" width="{box}" height="84" rx="8" fill="#f1f5f9" stroke="{LINE}"/>')
        out.append(text(x + box / 2, 146, name, size=15, anchor="middle", bold=True))
        out.append(text(x + box / 2, 170, first, size=12, anchor="middle", fill=SOFT))
        out.append(text(x + box / 2, 187, second, size=12, anchor="middle", fill=SOFT))
        if number:
            out.append(arrow(x - gap + 2, 162, x - 3, 162))
    last = left + 4 * (box + gap) + box / 2
    out.append(f'<path d="M{last:g} 204 V250 H{left + box / 2:g} V207" {STROKE}/>')
    out.append(text(width / 2, 242, "the next episodes come from the new policy", size=12, anchor="middle", fill=SOFT))
    out.append(
        text(
            width / 2,
            280,
            "then, when due: evaluation on held-out tasks with intervals, and a checkpoint",
            anchor="middle",
        )
    )
    return "\n".join([*out, "</svg>\n"])


def arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    """A straight arrow between two points."""
    return f'<path d="M{x1:g} {y1:g} L{x2:g} {y2:g}" {STROKE}/>'


def demo_rows(page: str) -> list[tuple[str, float, float, float, float, float]]:
    """The runs of the demo's results.

    Returns:
        Per training seed: its name, success before SFT, after SFT, after RL, and the paired gain's interval.
    """
    number = r"\+?(-?[\d.]+)"
    line = re.compile(
        rf"^\| demo_seed_(\d+) \| {number} \| {number} \| {number} \| {number} \[{number}, {number}\]", re.MULTILINE
    )
    found = line.findall(page)
    return [
        (f"seed {seed}", float(base), float(sft), float(rl), float(low), float(high))
        for seed, base, sft, rl, _gain, low, high in found
    ]


def demo() -> str:
    """Success of the demo's policy before SFT, after SFT and after RL, one group of bars per training seed."""
    rows = demo_rows(RESULTS.read_text(encoding="utf-8"))
    width, height, left, top, bottom = 760, 330, 70, 70, 262
    out = [opening(width, height, "Success of the demo before and after training, three training seeds")]
    out.append(text(24, 32, "make demo: held-out success on six web tasks, SmolLM2-135M", size=15, bold=True))
    out.append(
        text(
            24,
            51,
            "greedy, 50 unseen start states per task (15 before SFT); 2 CPU cores, 13 to 16 minutes of GRPO",
            size=12,
            fill=SOFT,
        )
    )

    def y(share: float) -> float:
        return bottom - share * (bottom - top)

    for share in (0, 0.25, 0.5, 0.75, 1):
        out.append(f'<line x1="{left}" y1="{y(share):g}" x2="{width - 24}" y2="{y(share):g}" stroke="#e2e8f0"/>')
        out.append(text(left - 8, y(share) + 4, f"{share:g}", size=12, fill=SOFT, anchor="end"))
    wide, group = 52, (width - 24 - left) / len(rows)
    for place, (name, base, sft, rl, low, high) in enumerate(rows):
        start = left + place * group + (group - 3 * wide - 12) / 2
        for number, (share, colour) in enumerate(((base, GREY), (sft, "#93c5fd"), (rl, BLUE))):
            x = start + number * (wide + 6)
            tall = max(bottom - y(share), 1.5)
            out.append(f'<rect x="{x:g}" y="{bottom - tall:g}" width="{wide}" height="{tall:g}" fill="{colour}"/>')
            above = y(sft + high) if number == 2 else y(share)
            out.append(text(x + wide / 2, above - 7, f"{share:.2f}", size=12, anchor="middle", bold=number == 2))
        out.append(whisker(start + 2 * (wide + 6) + wide / 2, y(sft + low), y(sft + high)))
        out.append(text(start + 1.5 * wide + 6, bottom + 20, f"training {name}", anchor="middle"))
    for place, (words, colour) in enumerate((("before SFT", GREY), ("after SFT", "#93c5fd"), ("after GRPO", BLUE))):
        out.append(f'<rect x="{left + place * 120}" y="{bottom + 37}" width="12" height="12" fill="{colour}"/>')
        out.append(text(left + place * 120 + 18, bottom + 47, words, size=12))
    out.append(
        text(
            width - 24,
            bottom + 47,
            "whisker: 95% interval of GRPO's gain on these six tasks",
            size=12,
            fill=SOFT,
            anchor="end",
        )
    )
    return "\n".join([*out, "</svg>\n"])


def whisker(x: float, low: float, high: float) -> str:
    """A vertical interval with caps."""
    path = f"M{x:g} {low:g} V{high:g} M{x - 6:g} {low:g} h12 M{x - 6:g} {high:g} h12"
    return f'<path d="{path}" stroke="{INK}" stroke-width="1.6"/>'


FIGURES = {"loop.svg": loop, "demo_result.svg": demo}


def main() -> None:
    """Writes the figures."""
    for name, draw in FIGURES.items():
        (IMAGES / name).write_text(draw(), encoding="utf-8")
    print(f"wrote {', '.join(FIGURES)}")


if __name__ == "__main__":
    main()
