"""Settings of the documentation's site, which two commands build in the root of a clone.

    pip install -e '.[docs]'
    sphinx-build -W --keep-going -c docs . generated/site

The root of the repository is the source folder, so that relative links lead to the same places on the site as in the
repository. Notebooks are executed in temporary folders, a cell that fails ends the build, and outputs are cached in
``generated/notebooks`` until the code of a notebook changes; delete that folder to execute all.
"""

import sys
from pathlib import Path

import wavegen

_HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(_HERE))  # of docstrings.py and settings.py

project = "wavegen"
author = "the wavegen authors"
copyright = author
version = release = wavegen.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "docstrings", "settings"]
root_doc = "docs/index"
include_patterns = [
    "docs/**",
    "benchmarks/README.md",
    "benchmarks/results/*.md",
    "wavegen/assets/models/*.md",
    "CHANGELOG.md",
]
exclude_patterns = [
    "docs/README.md",  # part of docs/index.md
    *(".venv", "build", "cache", "generated", "runs"),  # large folders that need not be searched
]
default_role = "literal"
smartquotes = False

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_cache_path = str(_HERE.parent / "generated" / "notebooks")
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 3600  # seconds for a cell, on a machine that is busy
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # attributes of a class are documented once, in its docstring
napoleon_use_rtype = False

html_theme = "furo"
html_title = "wavegen"
html_extra_path = ["site"]  # index.html, which leads to the first page
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False
