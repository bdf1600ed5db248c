"""``python -m wavegen`` is the command ``wavegen``."""

from wavegen.cli import main

main()
