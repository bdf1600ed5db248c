"""Let one write of a command fail, or all from one on: one line, nothing of before harmed, and the next start goes on.

    python tests/fuzz/failing_writes.py --tries 100 --seed 0
    python tests/fuzz/failing_writes.py --seed 0 --only train --number 12

A try lets a call by which a command changes its folder (write, fsync, rename, unlink, mkdir) fail with "no space left",
"input/output error", "quota exceeded" or "read-only file system". The command may go on, where what failed is a log, or
end with status 2; what it says are lines of its own. The next start, without a fault, must end with the results of a
command that nothing disturbed; a file that an export was to replace is the old one or the new one, never anything else.
"""

import errno
import shutil
from pathlib import Path

import numpy as np
import tyro
from faults import Fault, run, start_again_with_library, workshop_folder
from table import Table

ERRORS = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS)
LINES = 4
"""That a training may say: the log, TensorBoard and a first checkpoint are warnings, a second checkpoint is the end."""


def fail(case, folder: Path, before: bytes, fault: Fault, expected: str) -> tuple[str, str]:
    """Disturbs a command; returns how it ended, and what was wrong with it or after it ("" if nothing was)."""
    from commands import wrong_after

    folder.mkdir(parents=True)
    replaced = folder / "model.safetensors"
    if before:
        replaced.write_bytes(before)
    ended = run(case.command(folder), folder, fault)
    outcome = "went on" if ended.status == 0 else "ended with one line"
    lines = ended.errors.splitlines()
    if ended.status not in (0, 2) or ended.left or not all(line.startswith("wavegen: ") for line in lines):
        return outcome, f"{fault}: {ended}"
    if len(lines) > LINES or (ended.status == 2 and not lines):
        return outcome, f"{fault}: {len(lines)} lines: {ended}"
    if before and ended.status == 2 and replaced.read_bytes() != before:
        outcome = "ended with one line, the new file in place"
    log_lost = any("metrics.jsonl cannot be written" in line for line in lines)
    problem = wrong_after(case, folder, expected, rows=not log_lost)
    return outcome, f"{fault}, status {ended.status}: {problem}" if problem else ""


def main(
    tries: int = 100,
    seed: int = 0,
    only: str = "",
    number: int | None = None,
    workshop: Path | None = None,
) -> None:
    """Lets writes fail.

    Args:
        tries: how many.
        seed: of where, and with which error.
        only: the beginning of the names of the commands; by default train, prepare and export.
        number: of the one try to repeat.
        workshop: folder that keeps inputs and compiled programs for the next time; by default a temporary one.
    """
    with workshop_folder(workshop) as place:
        start_again_with_library(place)
        from commands import cases, make_inputs, reference

        make_inputs(place)
        starts = (only,) if only else ("train", "prepare", "export")
        wanted = {name: case for name, case in cases(place).items() if name.startswith(starts)}
        known: dict[str, tuple[str, int]] = {}
        options = f" --only {only}" * bool(only)
        with Table(f"python tests/fuzz/failing_writes.py --seed {seed}{options}") as table:
            for n in range(tries) if number is None else [number]:
                name = list(wanted)[n % len(wanted)]
                if name not in known:
                    known[name] = reference(wanted[name], place / "undisturbed" / name)
                expected, calls = known[name]
                # Every call has its turn; the kind of error and whether it lasts are random.
                call = 1 + (n // len(wanted) * 17 + 31 * seed) % calls
                rng, folder = np.random.default_rng([seed, n]), place / "failing"
                fault = Fault(f"error:{rng.choice(ERRORS)}", call, lasting=bool(rng.random() < 0.4))
                shutil.rmtree(folder, ignore_errors=True)
                before = (place / "codec.safetensors").read_bytes() if name == "export" else b""
                outcome, problem = fail(wanted[name], folder, before, fault, expected)
                table.add(name, n, problem, outcome=outcome)


if __name__ == "__main__":
    tyro.cli(main)
