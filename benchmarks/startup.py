"""
How long the small verbs take to start: `outreach --help`, and `outreach status` on the demo's database.

Prints seconds and the ratio to `python -c pass` in the same run. Goals: --help under 0.3 s, status
under 0.6 s.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUNS = 7


def best_of(runs: int, *arguments: str) -> float:
    """The shortest of some runs of Python with these arguments, in seconds."""
    taken = []
    for _ in range(runs):
        begun = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        taken.append(time.perf_counter() - begun)
    return min(taken)


def main() -> None:
    bare = best_of(RUNS, "-c", "pass")
    outreach = ("-c", "from outreach.cli import main; main()")
    with tempfile.TemporaryDirectory() as folder:
        shop = str(Path(folder) / "shop")
        subprocess.run([sys.executable, *outreach, "demo", shop], check=True, stdout=subprocess.DEVNULL)
        figures = {
            "outreach --help": (best_of(RUNS, *outreach, "--help"), 0.3),
            "outreach status": (best_of(RUNS, *outreach, "--workspace", shop, "status"), 0.6),
        }
    for name, (seconds, goal) in figures.items():
        verdict = "ok" if seconds < goal else "TOO SLOW"
        print(f"{name}: {seconds:.3f} s, {seconds / bare:.1f} x bare Python ({bare:.3f} s), goal {goal} s: {verdict}")


if __name__ == "__main__":
    main()
