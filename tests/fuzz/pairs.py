"""Start two commands at once on one folder: both end well, or one does and the other names it in one line.

    python tests/fuzz/pairs.py --tries 40 --seed 0
    python tests/fuzz/pairs.py --seed 0 --number 12

The second command starts at a random moment of the first. Each must end with status 0, or with status 2 and one line; at
least one must end well, and a reader that reads while a writer writes gives what it gives afterwards, or one line. At the
end the folder must hold what one undisturbed command leaves.
"""

import shutil
import time
from pathlib import Path

import numpy as np
import tyro
from faults import Ended, Running, start_again_with_library, workshop_folder
from table import Table

PAIRS = (
    ("train", "train"), ("train", "train, another seed"), ("train", "sample the run"), ("train", "export the run"),
    ("train", "evaluate the run"), ("study", "study"), ("study", "train in the study"),
    ("prepare memmap", "prepare memmap"), ("prepare memmap", "prepare array_record"),
    ("prepare memmap, 2 workers", "prepare memmap"), ("tokenize", "tokenize"), ("fit-codebook", "fit-codebook"),
    ("export", "export"), ("sample", "sample"),
)  # fmt: skip


def others(place: Path, out: Path) -> dict[str, list[str]]:
    """Commands that share a folder with one that writes a run or a study."""
    run = str(out / "tiny")
    return {
        "train, another seed": ["train", f"{place}/tiny.yaml", "seed=1", "--runs", str(out)],
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
    """Whether a command ended with status 2 and one line of its own."""
    return ended.status == 2 and len(ended.errors.splitlines()) == 1 and ended.errors.startswith("wavegen: ")


def both(place: Path, pair: tuple[str, str], out: Path, expected: str, delay: float) -> tuple[str, str]:
    """Runs two commands; returns how they ended, and what was wrong ("" if nothing was)."""
    from commands import cases, result_of

    known = cases(place)
    commands = [known[name].command(out) if name in known else others(place, out)[name] for name in pair]
    first = Running(commands[0], out)
    time.sleep(delay)
    second = Running(commands[1], out)
    ends = [first.wait(), second.wait()]
    outcome = ", ".join("ended well" if end.status == 0 else "was refused" for end in ends)
    for end in ends:
        if end.left or not ((end.status == 0 and end.clean) or refused(end)):
            return outcome, str(end)
    if all(end.status for end in ends):
        return outcome, f"both were refused: {ends[0]}, {ends[1]}"
    if ends[0].status:  # The second was the first to write; whichever is refused can be run again.
        if pair[1] != pair[0]:
            return outcome, ""
    for folder in ("generated", "tiny.safetensors"):  # of the reader
        path = out / folder
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    found = result_of(known[pair[0]], out)
    ok = found == expected or (pair[1] not in (pair[0], *others(place, out)) and ends[1].status == 0)
    return outcome, "" if ok else f"the folder holds {found[-300:]}, expected {expected[-300:]}"


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
        known: dict[str, tuple[str, float]] = {}
        with Table(f"python tests/fuzz/pairs.py --seed {seed}") as table:
            for n in range(tries) if number is None else [number]:
                pair, out = PAIRS[n % len(PAIRS)], place / "pairs"
                if pair[0] not in known:
                    begin = time.monotonic()
                    expected, _ = reference(cases(place)[pair[0]], place / "undisturbed" / pair[0])
                    known[pair[0]] = expected, time.monotonic() - begin
                expected, seconds = known[pair[0]]
                shutil.rmtree(out, ignore_errors=True)
                out.mkdir()
                delay = float(np.random.default_rng([seed, n]).uniform(0, seconds))
                outcome, problem = both(place, pair, out, expected, delay)
                table.add(" + ".join(pair), n, problem and f"after {delay:.2f} s: {problem}", outcome=outcome)


if __name__ == "__main__":
    tyro.cli(main)
