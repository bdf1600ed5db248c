"""What a fuzzer or a fault injector has found: tries and failures by kind, and how to repeat them."""

import signal
import sys
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Table:
    """Counts tries; a failure is printed at once.

    Args:
        command: that makes the same tries again, up to the number of one.
    """

    command: str
    tries: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, kind: str, number: int, problem: str = "", tries: int = 1, outcome: str = "") -> None:
        """Counts a try of some kind, or several together.

        Args:
            kind: of the tries.
            number: by which the same can be done again.
            problem: what failed; "" if nothing did.
            tries: how many.
            outcome: how it ended where several ends are good.
        """
        self.tries[kind] += tries
        if outcome:
            self.outcomes[kind, outcome] += tries
        if problem:
            self.failures[kind] += 1
            print(f"failed: {kind}: {problem}\n  again: {self.command} --number {number}", flush=True)

    def __enter__(self) -> "Table":
        """Lets signals end the tries, and not the table."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        """Prints the table, after Ctrl-C as well, and ends the program with status 1 if anything failed."""
        width = max(map(len, self.tries), default=0) + 2
        print(f"{'kind':{width}} {'tries':>7} {'failures':>9}")
        for name, tries in self.tries.items():
            ends = ", ".join(f"{n} {what}" for (of, what), n in self.outcomes.items() if of == name)
            print(f"{name:{width}} {tries:7} {self.failures[name]:9}  {ends}".rstrip())
        print(f"{'all':{width}} {self.tries.total():7} {self.failures.total():9}")
        if kind is None or kind is KeyboardInterrupt:
            sys.exit(bool(self.failures))
