"""Checkpoints that can be trusted: orbax writes them, and a sha256 manifest proves them.

Orbax commits a step atomically (a temporary folder, renamed when complete), but it restores flipped bits and casts
dtypes without a warning, flushes nothing to the disk, and its own best-n policy can delete the newest step. Every step
therefore has a manifest, which is written into the temporary folder just before the rename, when all files of the step
are flushed: a committed step always has one, and neither a kill nor a loss of power leaves an incomplete step. Older
steps are deleted here, not by orbax, once the rename is on the disk.
"""

import logging
import math
import os
import sys
import warnings
from collections.abc import Sequence
from functools import cache
from types import TracebackType
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils
from jaxtyping import PyTree

from wavegen.atomic import flush_folder, flush_tree
from wavegen.errors import WavegenError
from wavegen.runs.checksums import describe_arrays, find_damage, read_seal, write_seal


class Checkpoints:
    """The checkpoints of one run: ``folder/<step>/{state,config,manifest.json}``.

    Saving is asynchronous: ``save`` returns when the arrays are copied, and an error in writing is raised at the next
    call. One failed save is a warning, because older steps are intact and the next save may succeed; two in a row
    raise, and so does a failure that ``wait`` or ``close`` finds. With several processes every process makes every
    call, on one shared folder; process 0 writes and checks the manifests.

    Args:
        folder: a local path or any that orbax supports (``gs://...``); created if missing.
        keep_latest: number of the newest steps to keep.
        keep_best: number of steps with the lowest metric to keep in addition; a step without a metric, or with NaN,
            is never among the best.

    Raises:
        WavegenError: if the folder cannot be created.
    """

    def __init__(self, folder: str | os.PathLike[str], *, keep_latest: int = 2, keep_best: int = 1) -> None:
        self._is_local = "://" not in str(folder)
        self.folder = epath.Path(os.path.abspath(folder) if self._is_local else folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WavegenError(
                f"expected a writable folder for checkpoints, got {self.folder} ({error.strerror}); "
                "choose another or correct its permissions"
            ) from error
        self._metrics: dict[int, float] = {}
        self._keep_latest, self._keep_best = keep_latest, keep_best
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
                lightweight_initialize=True,  # otherwise orbax reads files that may be damaged
            ),
            item_handlers={"state": ocp.StandardCheckpointHandler(), "config": ocp.JsonCheckpointHandler()},
        )
        for step in self._manager.all_steps():
            if manifest := read_seal(self.folder / str(step)):
                self._note_metric(step, manifest.metric)
        _leave_words_to_us()
        self._damage: dict[int, str | None] = {}
        self._failures: list[WavegenError] = []  # of the last saves in a row
        self._in_flight: dict[str, Any] = {}  # the manifest of the step that is being written

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def save(self, step: int, state: PyTree, config: dict[str, Any], metric: float | None = None) -> None:
        """Starts to save; the arrays may be donated as soon as this returns.

        Existing steps from ``step`` on belong to a history that was rewound (from a damaged newest step, or by
        request), and are deleted first.

        Args:
            step: number of updates so far.
            state: any pytree of arrays.
            config: JSON values, which ``restore`` and ``config`` return.
            metric: a figure such as bits per sample, lower is better, by which ``keep_best`` chooses.

        Raises:
            WavegenError: if the two newest saves failed.
        """
        self._settle()
        if jax.process_index() == 0:  # Remains of a kill or a failure may be what fills the disk.
            for left_over in self.folder.glob(f"*{ocp.utils.TMP_DIR_SUFFIX}*"):
                left_over.rmtree()
        for stale in [s for s in self._manager.all_steps() if s >= step]:
            self._manager.delete(stale)
            self._metrics.pop(stale, None)
        self._damage.pop(step, None)
        self._note_metric(step, metric)
        self._in_flight = {"step": step, "metric": self._metrics.get(step), "arrays": describe_arrays(state)}
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), config=ocp.args.JsonSave(config))
        try:
            self._manager.save(step, args=items)
        except Exception as error:
            self._fail(error)

    def restore(self, abstract_state: PyTree, step: int | None = None) -> tuple[PyTree, int, dict[str, Any]]:
        """Returns the state, its step and its config.

        Args:
            abstract_state: shapes, dtypes and shardings to restore to (``ShapeDtypeStruct`` or arrays); the sharding
                may differ from the one it was saved with. A leaf without one goes to the default device.
            step: the step to restore; None is the newest undamaged one, with a warning for each damaged one.

        Raises:
            WavegenError: if there is no usable checkpoint, or it is of another model.
        """
        step = self._choose(step)
        self._expect_same_arrays(step, abstract_state)
        restored = self._read(step, abstract_state)
        return restored.state, step, restored.config

    def restore_weights(self, params: PyTree, step: int | None = None) -> tuple[PyTree, dict[str, Any]]:
        """Returns the averaged parameters, or the parameters if no average was kept, and the config.

        Args:
            params: shapes and dtypes of the parameters; the rest of the checkpoint is not compared.
            step: see ``restore``.

        Raises:
            WavegenError: see ``restore``.
        """
        step = self._choose(step)
        saved = dict(self._manager.item_metadata(step).state)
        state = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), saved)
        name = "ema" if state.get("ema") else "params"
        self._expect_same_arrays(step, {name: params}, {name})
        restored = self._read(step, {**state, name: params})
        return restored.state[name], restored.config

    def _read(self, step: int, abstract_state: PyTree) -> Any:
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        target = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=getattr(x, "sharding", None) or device),
            abstract_state,
        )
        items = ocp.args.Composite(state=ocp.args.StandardRestore(target), config=ocp.args.JsonRestore())
        return self._manager.restore(step, args=items)

    def config(self, step: int | None = None) -> dict[str, Any]:
        """Returns the config that was saved with ``step``, or with the step that ``restore`` would choose."""
        items = ocp.args.Composite(config=ocp.args.JsonRestore())
        return self._manager.restore(self._choose(step), args=items).config

    def latest_step(self) -> int | None:
        """Returns the newest committed step, or None; its files are not checked here."""
        self._settle()
        return self._manager.latest_step()

    def best_step(self) -> int | None:
        """Returns the step with the lowest metric, or None if none has one; its files are not checked here."""
        self._settle()
        steps = [step for step in self._manager.all_steps() if step in self._metrics]
        return min(steps, key=self._metrics.__getitem__, default=None)

    def wait(self) -> None:
        """Blocks until the current save is committed.

        Raises:
            WavegenError: if the newest save failed.
        """
        self._settle()
        if self._failures:
            raise self._failures[-1]

    def close(self) -> None:
        """Waits, with the errors of ``wait``, and releases orbax's threads."""
        try:
            self.wait()
        finally:
            self._manager.close()

    def _settle(self) -> None:
        """Waits for the current save, and counts it as done or failed."""
        if not self._in_flight:
            return
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            self._fail(error)
        else:
            self._in_flight = {}
            self._failures = []
            self._delete_older()

    def _delete_older(self) -> None:
        """Deletes the steps that are not to be kept, once the newest one is on the disk."""
        if self._is_local and jax.process_index() == 0:
            flush_folder(self.folder)
        steps = sorted(self._manager.all_steps())
        best = sorted(self._metrics.keys() & set(steps), key=self._metrics.__getitem__)[: self._keep_best]
        for step in {*steps} - {*steps[-self._keep_latest :], *best}:
            self._manager.delete(step)
            self._metrics.pop(step, None)

    def _fail(self, error: Exception) -> None:
        """Warns of a first failed save, and raises at a second in a row."""
        step = self._in_flight.pop("step")
        self._in_flight = {}
        self._metrics.pop(step, None)
        self._manager.reload()  # orbax has already dropped the steps that this one was to replace
        reason = " ".join(str(error).split())[-200:]  # tensorstore names the cause last
        failure = WavegenError(
            f"expected to write checkpoint {step} in {self.folder}, got {type(error).__name__}: {reason}; "
            "free space or repair the folder, then run again to resume"
        )
        failure.__cause__ = error
        self._failures.append(failure)
        if len(self._failures) > 1:
            raise failure
        warnings.warn(
            f"{failure} (older checkpoints are intact, and the next save may succeed)", stacklevel=4
        )

    def _choose(self, step: int | None) -> int:
        """Returns the step to read: on every process the one that process 0 found undamaged."""
        self._settle()
        steps = sorted(self._manager.all_steps())
        if not steps:
            raise WavegenError(
                f"expected a checkpoint in {self.folder}, got none; train first or correct the path"
            )
        if step is not None and step not in steps:
            raise WavegenError(
                f"expected one of the steps {steps} of {self.folder}, got {step}; choose one of them"
            )
        chosen = -1
        if jax.process_index() == 0:
            chosen = self._newest_sound(steps if step is None else [step])
        if jax.process_count() > 1:
            chosen = int(multihost_utils.broadcast_one_to_all(np.int32(chosen)))
        if chosen < 0:
            raise WavegenError(
                f"expected an undamaged checkpoint in {self.folder}, got damage in step "
                f"{', '.join(map(str, steps if step is None else [step]))}; choose another step or folder"
            )
        return chosen

    def _newest_sound(self, steps: Sequence[int]) -> int:
        for step in reversed(steps):
            if step not in self._damage:
                self._damage[step] = find_damage(self.folder / str(step))
                if self._damage[step]:
                    warnings.warn(
                        f"checkpoint {step} is damaged and is left out: {self._damage[step]}",
                        stacklevel=4,
                    )
            if self._damage[step] is None:
                return step
        return -1

    def _expect_same_arrays(self, step: int, abstract_state: PyTree, parts: set[str] | None = None) -> None:
        """Compares the arrays of a state with those that were saved: all of them, or those of some parts."""
        manifest = read_seal(self.folder / str(step))
        assert manifest is not None, "_choose has read this manifest"
        saved, wanted = manifest.arrays, describe_arrays(abstract_state)
        if parts is not None:
            saved = {name: array for name, array in saved.items() if name.split("/")[0] in parts}
        for name in [*wanted, *saved]:
            if saved.get(name) != wanted.get(name):
                raise WavegenError(
                    f"expected {name} to be {wanted.get(name, 'absent')}, got {saved.get(name, 'none')} in "
                    f"checkpoint {step} of {self.folder}, which is of another model; use the config it was "
                    "trained with"
                )

    def _note_metric(self, step: int, metric: float | None) -> None:
        if metric is not None and math.isfinite(metric):
            self._metrics[step] = float(metric)

    def _seal(self) -> None:
        """Writes the manifest; orbax calls this on process 0, just before it commits the step."""
        name = str(self._in_flight["step"])
        temporary = self.folder / (name + ocp.utils.TMP_DIR_SUFFIX)
        # Object stores cannot rename: a step is written in place there, and a marker file commits it.
        step = temporary if temporary.exists() else self.folder / name
        write_seal(step, self._in_flight)
        if self._is_local:
            flush_tree(step)


@cache
def _leave_words_to_us() -> None:
    """Silences what orbax prints of a failed write, which is reported here: some pages of several threads."""
    logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname)
    uncaught, unraisable = sys.excepthook, sys.unraisablehook

    def is_late(error: BaseException | None) -> bool:
        """Whether a write has ended after its event loop was given up."""
        return type(error) is RuntimeError and str(error) == "Event loop is closed"

    def print_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not is_late(error):
            uncaught(kind, error, trace)

    def print_unraisable(what: "sys.UnraisableHookArgs") -> None:
        if not is_late(what.exc_value):
            unraisable(what)

    # Which of the two gets it depends on the version of tensorstore.
    sys.excepthook, sys.unraisablehook = print_uncaught, print_unraisable
