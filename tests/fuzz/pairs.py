"""Start two commands at once on one folder: both end well, or one does and the other is refused in one line.

    python tests/fuzz/pairs.py --tries 40 --seed 0
    python tests/fuzz/pairs.py --seed 0 --number 12

The second command starts at a random moment of the first. Each must end with status 0, or be refused in one line (of a
study, one experiment may be refused), and at least one must end well. If the first one has, its folder must hold what
it leaves undisturbed, or what the second one does; otherwise it must do so when it is run again.
"""

import shutil
import time
from pathlib import Path

import numpy as np
import tyro
from faults import Ended, Running, start_again_with_library, workshop_folder
from table import Table

ANOTHER_SEED = "train, another seed"
PAIRS = (
    ("train", "train"), ("train", ANOTHER_SEED), ("train", "sample the run"), ("train", "export the run"),
    ("train", "evaluate the run"), ("study", "study"), ("study", "train in the study"),
    ("prepare memmap", "prepare memmap"), ("prepare memmap", "prepare array_record"),
    ("prepare memmap, 2 workers", "prepare memmap"), ("tokenize", "tokenize"), ("fit-codebook", "fit-codebook"),
    ("export", "export"), ("sample", "sample"),
)  # fmt: skip


def others(place: Path, out: Path) -> dict[str, list[str]]:
    """Commands that share a folder with one that writes a run or a study."""
    run = str(out / "tiny")
    return {
        ANOTHER_SEED: ["train", f"{place}/tiny.yaml", "seed=1", "--runs", str(out)],
        "sample the run": ["sample", run, "--seconds", "0.05", "-o", str(out / "generated")],
        "export the run": ["export", run, str(out / "tiny.safetensors")],
        "evaluate the run": ["evaluate", run],
        "train in the study": [
            *(
                "train",
                f"{place}/tiny.yaml",
                "name=one-tiny-plain-0",
                "training.steps=2",
                "optimizer.warmup_steps=0",
            ),
            *("--runs", str(out / "runs" / "study")),
        ],
    }


def refused(ended: Ended) -> bool:
    """Whether a command was refused in one line; a study then goes on with its other experiments."""
    if ended.status == 1:
        return not ended.errors and "is being written by process" in ended.out
    return ended.status == 2 and len(ended.errors.splitlines()) == 1 and ended.errors.startswith("wavegen: ")


def both(
    place: Path, pair: tuple[str, str], out: Path, known: dict[str, str], delay: float
) -> tuple[str, str]:
    """Runs two commands; returns how they ended, and what was wrong ("" if nothing was)."""
    from commands import cases, result_of, wrong_after

    writers = cases(place)
    commands = [writers[name].command(out) if name in writers else others(place, out)[name] for name in pair]
    first = Running(commands[0], out)
    time.sleep(delay)
    second = Running(commands[1], out)
    ends = [first.wait(), second.wait()]
    outcome = " and ".join("ended well" if end.status == 0 else "was refused" for end in ends)
    for end in ends:
        if end.left or not (refused(end) or (end.status == 0 and end.clean)):
            return outcome, str(end)
    if all(end.status for end in ends):
        return outcome, f"both were refused: {ends[0]}, {ends[1]}"
    if ends[0].status == 0:
        found = result_of(writers[pair[0]], out)
        problem = (
            "" if found in [known[name] for name in pair if name in known] else f"it leaves {found[-300:]}"
        )
    elif pair[1] == ANOTHER_SEED:  # Now the folder is the second one's.
        problem = ""
    else:
        problem = wrong_after(writers[pair[0]], out, known[pair[0]])
    return outcome, problem


def main(
    tries: int = 40,
    seed: int = 0,
    number: int | None = None,
    workshop: Path | None = None,
) -> None:
    """Starts pairs of commands.

    Args:
        tries: how many.
        seed: of when the second one starts.
        number: of the one pair to repeat.
        workshop: folder that keeps inputs and compiled programs for the next time; by default a temporary one.
    """
    with workshop_folder(workshop) as place:
        start_again_with_library(place)
        from commands import cases, make_inputs, reference

        make_inputs(place)
        known: dict[str, str] = {}
        seconds: dict[str, float] = {}
        with Table(f"python tests/fuzz/pairs.py --seed {seed}") as table:
            for n in range(tries) if number is None else [number]:
                pair, out = PAIRS[n % len(PAIRS)], place / "pairs"
                for name in {*pair} & cases(place).keys() - known.keys():
                    begin = time.monotonic()
                    known[name], _ = reference(cases(place)[name], place / "undisturbed" / name)
                    seconds[name] = time.monotonic() - begin
                shutil.rmtree(out, ignore_errors=True)
                out.mkdir()
                delay = float(np.random.default_rng([seed, n]).uniform(0, seconds[pair[0]]))
                outcome, problem = both(place, pair, out, known, delay)
                table.add(" + ".join(pair), n, problem and f"after {delay:.2f} s: {problem}", outcome=outcome)


if __name__ == "__main__":
    tyro.cli(main)
