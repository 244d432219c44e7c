"""Runs recipes one after the other, each in a fork of this process, which has imported them once. For `same_run.py`.

Reads one JSON list from stdin: [name of the recipe, words, file for what it prints] for each run. A run that fails
leaves its error in that file and `failed` on a line of its own in stdout; one that ends leaves `ended`.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback


def forked(recipe: str, words: list[str], log: str) -> bool:
    """One run in a child process. -> whether it ended without an error."""
    child = os.fork()
    if child == 0:
        status = 1
        with open(log, "w", encoding="utf-8") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            try:
                importlib.import_module(f"rollwright.recipes.{recipe}").main(words)
                status = 0
            except SystemExit as stop:
                status = int(bool(stop.code))
                print(stop.code, file=sys.stderr)
            except BaseException:
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)
    return os.waitpid(child, 0)[1] == 0


def main() -> None:
    jobs = json.load(sys.stdin)
    for recipe in dict.fromkeys(recipe for recipe, _, _ in jobs):
        importlib.import_module(f"rollwright.recipes.{recipe}")
    for recipe, words, log in jobs:
        print("ended" if forked(recipe, words, log) else "failed", flush=True)


if __name__ == "__main__":
    main()
