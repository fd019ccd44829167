"""Processor time until a command has answered: `python -m benchmarks.startup`.

Of `--help` of every command: the least of a few runs with warm caches, in seconds and as a multiple of
`python -c pass`, and which large libraries were imported for it. `--tree FOLDER` measures another checkout.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
from pathlib import Path

from earface.commands import COMMANDS

ROOT = Path(__file__).parents[1]
LARGE = ("torch", "pytorch_lightning", "numpy", "cv2", "matplotlib", "albumentations", "sklearn", "timm", "rich")
LARGE = (*LARGE, "jsonargparse", "yaml", "huggingface_hub", "PIL")
SHOWN = "import sys, atexit; atexit.register(lambda: print(*sys.modules, file=sys.stderr)); "


def seconds_of(tree: Path, *words: str) -> tuple[float, set[str]]:
    """User and system time of `python WORDS` in `tree`, and the names on its stderr."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"PYTHONPATH": str(tree), "COLUMNS": "100"}
    done = subprocess.run([sys.executable, *words], cwd=tree, env=environment, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return used, set(done.stderr.split())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tree", type=Path, default=ROOT, help="checkout to measure")
    args = parser.parse_args()
    nothing = min(seconds_of(args.tree, "-c", "pass")[0] for _ in range(3 * args.repeats))
    print(f"python -c pass: {nothing:.3f} s")
    print("| command | seconds | x `python -c pass` | imported |\n|---|---|---|---|")
    for name, command in COMMANDS.items():
        program = f"{SHOWN}from earface.commands import main; main({[*name.split(), '--help']!r})"
        runs = [seconds_of(args.tree, "-c", program) for _ in range(args.repeats)]
        found = " ".join(each for each in LARGE if each in runs[0][1])
        used = min(seconds for seconds, _ in runs)
        print(f"| {name} ({command.module}) | {used:.2f} | {used / nothing:.0f} | {found} |", flush=True)


if __name__ == "__main__":
    main()
