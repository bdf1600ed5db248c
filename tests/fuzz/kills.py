"""Kill commands at random writes, and run them again: what they leave must be what they leave undisturbed.

    python tests/fuzz/kills.py --tries 100 --seed 0
    python tests/fuzz/kills.py --seed 0 --only train --number 12

A try is one SIGKILL, at one of the calls by which a command changes its folder; what is written then is torn. A command
is killed up to six times before it may end. Then must hold: its results are equal bit for bit, those of training with
weights, optimizer, figures and samples; no temporary file is left; no worker process has outlived its parent.
"""

import shutil
from pathlib import Path

import numpy as np
import tyro
from faults import Fault, run, start_again_with_library, workshop_folder
from table import Table

IN_A_ROW = 6


def kill(case, folder: Path, expected: str, calls: int, rng: np.random.Generator) -> tuple[int, str]:
    """Kills a command until it has ended; returns how often, and what was wrong then ("" if nothing was)."""
    from commands import wrong_after

    story: list[str] = []
    while len(story) < IN_A_ROW:
        # What is resumed has less left to do.
        call = int(rng.integers(1, max(2, calls // (1 + len(story)))))
        fault = Fault(str(rng.choice(["kill", "kill-leader"])), call)
        ended = run(case.command(folder), folder, fault)
        if ended.status == 0:
            break
        story.append(f"{fault.what} at {call}")
        # Of several processes a worker may be the one that dies.
        expected_end = ended.status == -9 or (ended.status == 2 and "a worker process died" in ended.errors)
        if ended.left or not expected_end:
            return len(story), f"{', '.join(story)}: {ended}"
    problem = wrong_after(case, folder, expected)
    return len(story), f"{', '.join(story)}: {problem}" if problem else ""


def main(
    tries: int = 100,
    seed: int = 0,
    only: str = "",
    number: int | None = None,
    workshop: Path | None = None,
) -> None:
    """Kills commands.

    Args:
        tries: how many kills.
        seed: of where.
        only: the beginning of the names of the commands that are killed; by default all, and every second one trains.
        number: of the one sequence of kills to repeat.
        workshop: folder that keeps inputs and compiled programs for the next time; by default a temporary one.
    """
    with workshop_folder(workshop) as place:
        start_again_with_library(place)
        from commands import cases, make_inputs, reference

        make_inputs(place)
        wanted = {name: case for name, case in cases(place).items() if name.startswith(only)}
        others = [name for name in wanted if name != "train"]
        known: dict[str, tuple[str, int]] = {}
        options = f" --only {only}" * bool(only)
        with Table(f"python tests/fuzz/kills.py --seed {seed}{options}") as table:
            for n in range(tries) if number is None else [number]:
                name = (
                    "train"
                    if "train" in wanted and (n % 2 == 0 or not others)
                    else others[n // 2 % len(others)]
                )
                if name not in known:
                    known[name] = reference(wanted[name], place / "undisturbed" / name)
                rng, folder = np.random.default_rng([seed, n]), place / "killed"
                shutil.rmtree(folder, ignore_errors=True)
                killed, problem = kill(wanted[name], folder, *known[name], rng)
                table.add(name, n, problem, killed)
                if table.tries.total() >= tries:
                    break


if __name__ == "__main__":
    tyro.cli(main)
