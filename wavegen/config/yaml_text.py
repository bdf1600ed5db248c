"""YAML as configurations use it: plain trees of bounded size, read in linear time, or refused in one line.

Aliases may repeat a part, but not so often that the tree becomes large ("a billion laughs"), nor contain themselves.
"""

import re
from typing import Any

import yaml

from wavegen.errors import WavegenError

LARGEST = 1 << 16  # bytes of a file, ten times a long configuration; they take about a second
DEEPEST = 64  # sections within sections
MOST = 20_000  # values of a tree whose aliases are written out
LONGEST_NUMBER = 100  # characters; a number of thousands of digits takes seconds to convert

# YAML 1.1 reads 1e-4 as text; this form reads it as the number that was meant.
_FLOAT = re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d+)([eE][-+]?\d+)?$|^[-+]?\.(inf|Inf)$|^\.(nan|NaN)$")
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


class _Loader(yaml.SafeLoader):
    """The safe loader of YAML 1.1 with scientific numbers, dates as text, and bounds on the depth and the tree.

    Its scanner takes time in proportion to the depth for each token, and its composer recurses: both are bounded here,
    where a level is entered.
    """

    def fetch_flow_collection_start(self, token_class: Any) -> None:
        """Enters a level in brackets or braces."""
        self._enter(self.flow_level)
        super().fetch_flow_collection_start(token_class)

    def add_indent(self, column: int) -> bool:
        """Enters a level by indentation."""
        self._enter(len(self.indents))
        return super().add_indent(column)

    def get_single_node(self) -> Any:
        """Returns the root of the document, after its size with all aliases written out was checked."""
        node = super().get_single_node()
        if node is not None:
            _size(node, {})
        return node

    def _enter(self, depth: int) -> None:
        if depth >= DEEPEST:
            raise yaml.YAMLError(f"expected at most {DEEPEST} levels of sections, got more")


# Without the forms of dates: a date is no value of a configuration, and 2026-13-01 an error within the library.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in forms if not tag.endswith(":timestamp")]
    for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """Returns the number of values below a node, its aliases written out; ``known`` holds those counted already."""
    if (size := known.get(id(node))) is not None:
        if not size:  # it is being counted further up: an alias within its own anchor
            raise yaml.YAMLError("expected a tree, got an alias that contains itself")
        return size
    known[id(node)] = 0
    size = 1
    if isinstance(node, yaml.ScalarNode):
        if node.tag in _NUMBERS and len(node.value) > LONGEST_NUMBER:
            raise yaml.YAMLError(
                f"expected numbers of at most {LONGEST_NUMBER} characters, got {node.value[:20]}..."
            )
    elif isinstance(node, yaml.SequenceNode):
        size += sum(_size(value, known) for value in node.value)
    elif isinstance(node, yaml.MappingNode):
        size += sum(_size(key, known) + _size(value, known) for key, value in node.value)
    if size > MOST:
        raise yaml.YAMLError(f"expected at most {MOST} values with all aliases written out, got {size}")
    known[id(node)] = size
    return size


def parse_yaml(text: str, source: str) -> Any:
    """Parses YAML.

    Args:
        text: at most ``LARGEST`` characters.
        source: what the text is, for messages: a path, or "the value of 'a.b'".

    Raises:
        WavegenError: if the text is too long, no YAML, nested more than ``DEEPEST`` levels, more than ``MOST`` values,
            or a value does not fit the tag that is written before it.

    Example:
        >>> from wavegen.config.yaml_text import parse_yaml
        >>> parse_yaml("{rate: 1e-4, day: 2026-01-02}", "an example")
        {'rate': 0.0001, 'day': '2026-01-02'}
    """
    if len(text) > LARGEST:
        raise WavegenError(f"{source} must have at most {LARGEST} characters, got {len(text)}; shorten it")
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise WavegenError(f"{source} is not valid YAML: {_one_line(error)}") from None
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        # What the constructors of the library raise for !!int abc, !!bool maybe or !!timestamp never.
        raise WavegenError(
            f"{source} is not valid YAML: a value does not fit its tag ({_one_line(error)})"
        ) from None


def _one_line(error: Exception) -> str:
    line = " ".join(str(error).split())
    return line if len(line) <= 300 else f"{line[:300]}..."
