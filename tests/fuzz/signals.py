"""Send signals to commands at random moments: each ends with one line and its status, and the next start goes on.

    python tests/fuzz/signals.py --tries 150 --seed 0
    python tests/fuzz/signals.py --seed 0 --number 12

Commands get SIGINT, SIGTERM and SIGHUP in turn: in a new process, which still imports; in one that has imported all;
and at one of the calls by which it changes its folder. It must end with status 130, 143 or 129, or with 0 where it was
done; without a traceback, a crash, or more than two lines of errors (a training first says that it stops after its
step). What is interrupted while it writes must end well when it is started again, with what an undisturbed command
leaves.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import tyro
from faults import Ended, Fault, Running, run, start_again_with_library, workshop_folder
from table import Table

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ROOT = Path(__file__).parents[2]
# A shell starts background jobs with SIGINT ignored, nohup with SIGHUP; this program may run in such a job.
FRESH = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "signal.signal(signal.SIGHUP, signal.SIG_DFL);"
    "from wavegen.__main__ import run; print('ready', flush=True); run(sys.argv[1:])"
)
IMPORTING, AT_WORK = 3.0, 2.0
"""Seconds within which a signal comes, in a new process and in a forked one."""


def others(place: Path, out: Path) -> dict[str, list[str]]:
    """Commands that the other injectors leave out, as nothing depends on what they write."""
    model, codec, notes = (f"{place}/{name}.safetensors" for name in ("tiny", "codec", "notes"))
    recording, score, to = (
        str(place / "recordings" / "test" / "7.flac"),
        f"{place}/score.mid",
        ["-o", str(out)],
    )
    return {
        "evaluate": ["evaluate", model, "--data", f"{place}/data"],
        "report": ["report", "--clips", "1", "--out", str(out)],
        "info": ["info"],
        "bench": ["bench", "--steps", "1000000", "--implementation", "xla"],
        "reconstruct": ["reconstruct", codec, recording, *to],
        "interpolate": ["interpolate", codec, recording, recording, "--steps", "2", *to],
        "render": ["render", score, *to],
        "compose": ["compose", notes, "--length", "16", *to],
        "remix": ["remix", notes, score, *to],
        "song": ["song", notes, *to],
    }


def write_notes(place: Path) -> None:
    """Writes a model of notes and a score."""
    from inputs import write_model_of_notes

    from wavegen.notes.midi import write_midi
    from wavegen.notes.score import Score

    pitch, tick, velocity = np.arange(60, 68), 480 * np.arange(8), np.full(8, 80)
    write_midi(place / "score.mid", Score(pitch, tick, np.full(8, 480), velocity, np.zeros(8, int)))
    write_model_of_notes(place / "notes.safetensors", seed=0)


def in_new_process(arguments: list[str], number: int, delay: float, place: Path) -> Ended:
    """Runs a command in a new process, and sends it a signal after some seconds."""
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    command = [sys.executable, "-X", "faulthandler", "-c", FRESH, *arguments]
    with open(place / "errors", "w+") as errors:
        options = {"stdout": subprocess.PIPE, "stderr": errors, "stdin": subprocess.DEVNULL, "cwd": ROOT}
        process = subprocess.Popen(command, env=environment, text=True, **options)
        assert process.stdout.readline() == "ready\n"
        time.sleep(delay)
        process.send_signal(number)
        out, _ = process.communicate(timeout=900)
        errors.seek(0)
        return Ended(process.returncode, out, errors.read(), 0, 0)


def in_forked_process(command, number: int, delay: float, out: Path) -> Ended:
    """Runs a command in a process that has imported all, and sends it a signal after some seconds."""
    running = Running(command, out)
    time.sleep(delay)
    os.kill(running.pid, number)
    return running.wait()


def wrong(ended: Ended, number: int) -> str:
    """What is wrong with how a command ended; "" if nothing is."""
    # A forked process is killed by a signal that comes before its command begins.
    early = ended.status == -number and not ended.errors
    right = ended.status in (0, 128 + number) or early
    return "" if right and ended.clean and not ended.left else f"{signal.Signals(number).name}: {ended}"


def main(tries: int = 150, seed: int = 0, number: int | None = None, workshop: Path | None = None) -> None:
    """Sends signals to commands.

    Args:
        tries: how many.
        seed: of when.
        number: of the one try to repeat.
        workshop: folder that keeps inputs and compiled programs for the next time; by default a temporary one.
    """
    with workshop_folder(workshop) as place:
        start_again_with_library(place)
        from commands import cases, make_inputs, reference, wrong_after

        make_inputs(place)
        assert run(lambda: write_notes(place), place).status == 0
        writers, known, out = cases(place), {}, place / "signalled"
        names = [*writers, *others(place, out)]
        with Table(f"python tests/fuzz/signals.py --seed {seed}") as table:
            for n in range(tries) if number is None else [number]:
                rng, name, received = np.random.default_rng([seed, n]), names[n % len(names)], SIGNALS[n % 3]
                way = ("new process", "forked process", "at a call")[n // len(names) % 3]
                shutil.rmtree(out, ignore_errors=True)
                out.mkdir()
                command = writers[name].command(out) if name in writers else others(place, out)[name]
                if way == "new process" and callable(command):
                    way = "forked process"
                if name in writers and name not in known and way != "new process":
                    known[name] = reference(writers[name], place / "undisturbed" / name)
                if way == "at a call" and name in writers:
                    fault = Fault(f"signal:{received.value}", int(rng.integers(1, known[name][1] + 1)))
                    ended = run(command, out, fault)
                elif way == "new process":
                    ended = in_new_process(command, received, float(rng.uniform(0.05, IMPORTING)), place)
                else:
                    ended = in_forked_process(command, received, float(rng.uniform(0, AT_WORK)), out)
                problem = wrong(ended, received)
                if not problem and name in known:
                    problem = wrong_after(writers[name], out, known[name][0])
                table.add(name, n, problem and f"{way}: {problem}", outcome=way)


if __name__ == "__main__":
    tyro.cli(main)
