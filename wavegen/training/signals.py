"""Stopping a training: the first signal asks, the second insists."""

import signal

import jax
from jax.experimental import multihost_utils

from wavegen.stopping import StopRequest


class TrainingStop(StopRequest):
    """A stop request on which all processes of a training agree.

    With several processes, JAX's preemption service carries a SIGTERM that reached any of them to all, and names one
    step at which all of them stop; the other signals then interrupt as usual, because no step could be agreed on.
    """

    def __init__(self) -> None:
        super().__init__("step")

    def __enter__(self) -> "TrainingStop":
        # JAX's service has its own SIGTERM handler, which ours would displace.
        if jax.process_count() == 1:
            super().__enter__()
        return self

    def reached(self, step: int) -> bool:
        """Returns whether to save and stop after ``step``; with several processes all get the same answer."""
        if jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(step):
            self.received = signal.SIGTERM
        return self.received is not None
