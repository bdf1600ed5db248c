"""The directive ``settings``: a table of every setting of a module's sections, read from the classes themselves."""

import inspect
from importlib import import_module
from typing import Any, ClassVar, get_args

from docutils import nodes
from pydantic.fields import FieldInfo
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from wavegen.config.section import Section

_SIGNS = {"ge": "at least {}", "gt": "above {}", "le": "at most {}", "lt": "below {}"}


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, Section):
        kind = getattr(value, "kind", None)
        return f"section {type(value).__name__}" + (f", kind {kind}" if kind else "")
    return f"``{value!r}``"


def _values(field: FieldInfo) -> str:
    """The bounds of a number, or the words among which one is chosen."""
    bounds = [
        text.format(f"{getattr(rule, sign):,}")
        for rule in field.metadata
        for sign, text in _SIGNS.items()
        if getattr(rule, sign, None) is not None
    ]
    words = [word for word in get_args(field.annotation) if isinstance(word, str)]
    return ", ".join([*bounds, *(f"``{word}``" for word in words)])


def _rows(section: type[Section]) -> list[str]:
    lines = [".. list-table::", "   :header-rows: 1", "   :widths: 22 24 26 40", ""]
    cells = [("setting", "default", "values", "meaning")]
    for name, field in section.model_fields.items():
        cells.append((f"``{name}``", _default(field), _values(field), field.description or ""))
    for row in cells:
        lines += [f"   {'* -' if column == 0 else '  -'} {cell}".rstrip() for column, cell in enumerate(row)]
    return lines


class Settings(SphinxDirective):
    """``.. settings:: wavegen.config.training`` shows the sections that this module defines, in its order."""

    required_arguments: ClassVar[int] = 1

    def run(self) -> list[nodes.Node]:
        """See ``docutils.parsers.rst.Directive``."""
        module = import_module(self.arguments[0])
        self.env.note_dependency(str(inspect.getsourcefile(module)))
        sections = [
            value
            for value in vars(module).values()
            if inspect.isclass(value)
            and issubclass(value, Section)
            and value.__module__ == module.__name__
            and value.model_fields
        ]
        lines: list[str] = []
        for section in sections:
            lines += [
                f".. rubric:: {section.__name__}",
                "",
                inspect.getdoc(section) or "",
                "",
                *_rows(section),
                "",
            ]
        return self.parse_text_to_nodes("\n".join(lines))


def setup(app: Sphinx) -> dict[str, Any]:
    """Registers the directive."""
    app.add_directive("settings", Settings)
    return {"parallel_read_safe": True}
