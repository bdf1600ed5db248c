"""The typed configuration: one YAML file is one experiment, checked whole before JAX starts.

A configuration is a tree of frozen pydantic models. ``load_config`` reads a YAML file, applies ``a.b=c`` overrides
from the command line, and refuses unknown keys with the nearest known ones. The resolved tree (with ``version``) is
written into the run folder and into every checkpoint, and loads back identically.
"""

from wavegen.config.experiment import VERSION, Config
from wavegen.config.files import dump_config, load_config, resolve

__all__ = ["VERSION", "Config", "dump_config", "load_config", "resolve"]
