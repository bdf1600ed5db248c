"""Which label and which split a recording gets, from its name alone."""

import fnmatch
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from wavegen.bounded import is_inside, read_text
from wavegen.errors import WavegenError

Splits = Mapping[str, float | str | Sequence[str]]


_LARGEST_LIST = 256 << 20  # bytes


class LabelPattern:
    """Reads labels from a path such as "birds/0_george_12.wav".

    Args:
        pattern: names in braces are label fields, ``*`` is anything: "{digit}_{speaker}_{take}" reads the file
            name without its ending, "{genre}/*" the folder above it and "{artist}/{album}/*" two. "folder" is
            short for "{folder}/*".

    Raises:
        WavegenError: no field, a field twice, or two fields with nothing between them.

    Example:
        >>> from wavegen.config.splits import LabelPattern
        >>> LabelPattern("{digit}_{speaker}_{take}").labels("birds/0_george_12.wav")
        {'digit': '0', 'speaker': 'george', 'take': '12'}
    """

    def __init__(self, pattern: str):
        self.pattern = "{folder}/*" if pattern == "folder" else pattern
        # Names in braces, asterisks, and the text between them, which holds no brace.
        parts = re.split(r"(\{\w+\}|\*)", self.pattern)
        self.fields = [part[1:-1] for part in parts[1::2] if part != "*"]
        if (
            not self.fields
            or len(set(self.fields)) < len(self.fields)
            or not all(field.isidentifier() for field in self.fields)
            or re.search(r"[}*][{*]", self.pattern)
            or re.search("[{}]", "".join(parts[::2]))
        ):
            raise WavegenError(
                f"expected a label pattern such as '{{speaker}}_{{take}}' or 'folder', got {pattern!r}; "
                "write each field once in braces, beginning with a letter, with text between two of them"
            )
        # A field takes the fewest characters that fit, and never a folder boundary.
        forms = {"{": lambda part: f"(?P<{part[1:-1]}>[^/]+?)", "*": lambda part: "[^/]*"}
        self._regex = re.compile("".join(forms.get(part[:1], re.escape)(part) for part in parts))

    def labels(self, name: str) -> dict[str, str] | None:
        """The label of each field, or None where the name does not match.

        Args:
            name: path below the dataset's folder, with forward slashes.
        """
        path = name.rsplit(".", 1)[0].split("/")
        match = self._regex.fullmatch("/".join(path[-1 - self.pattern.count("/") :]))
        return match.groupdict() if match else None


class SplitRule:
    """Assigns whole recordings to splits; what no rule takes is "train".

    Args:
        splits: split name to one of
            a fraction, 0.05: that share of the files, by hash of the name, so that a file never changes its
            split when others come or go;
            labels, "take=0-4,7" or "speaker=george,lucas": values and whole-number ranges of one label field;
            a path pattern, "test/*": ``*`` stands for anything, folders included;
            a path pattern and a fraction, "test/* | 0.05": the fraction holds where the pattern takes no file;
            a part of the files in natural order ("2.wav" before "10.wav"), "order:0.88-0.94", as some published
            benchmarks split theirs;
            a list of names, one a line, in a file of the dataset's folder, "list:testing_list.txt";
            the names themselves.
            ``resolved_splits`` brings all others to one of fractions, labels, patterns and names.
            Names, labels and patterns are tried first, in order; fractions share what is left.
        by: fractions are of the values of this label field, "speaker", or of the folders, "folder", instead of the
            files: all files of one value, or in one folder, get the same split.

    Raises:
        WavegenError: fractions outside [0, 1] or above 1 together, or a rule of no known form.

    Example:
        >>> from wavegen.config.splits import SplitRule
        >>> rule = SplitRule({"test": "take=0-4", "valid": 0.0})
        >>> rule.split("0_george_3.wav", {"take": "3"}), rule.split("0_george_9.wav", {"take": "9"})
        ('test', 'train')
    """

    def __init__(self, splits: Splits, by: str | None = None):
        self._by = by
        self._rules = [(name, rule) for name, rule in splits.items() if isinstance(rule, str)]
        self._fractions = {
            name: float(share) for name, share in splits.items() if isinstance(share, int | float)
        }
        self._named = {
            member: name
            for name, rule in splits.items()
            if not isinstance(rule, str | int | float)
            for member in rule
        }
        self.shares = {name: share for name, share in self._fractions.items() if share > 0}
        """The fractions above 0."""
        shares = self._fractions.values()
        if any(not 0 <= share <= 1 for share in shares) or sum(shares) > 1:
            raise WavegenError(f"expected split fractions in [0, 1] of sum at most 1, got {self._fractions}")
        for name, rule in self._rules:
            if rule.startswith("order:"):
                _part_of(rule)
            elif "|" in rule:
                _alternatives(rule)
            elif rule.startswith("list:"):
                continue
            elif "=" not in rule and "*" not in rule and "/" not in rule:
                raise WavegenError(
                    f"expected a fraction, labels ('take=0-4') or a path pattern ('test/*') for split "
                    f"{name!r}, got {rule!r}; a part of an order is 'order:0.9-1', a list 'list:FILE'"
                )

    def split(self, name: str, labels: Mapping[str, str]) -> str:
        """The split of one recording.

        Args:
            name: path below the dataset's folder, with forward slashes.
            labels: field to value.

        Raises:
            WavegenError: a rule asks for a field that the recording does not have.
        """
        ruled = self.ruled(name, labels)
        return self.drawn(self.group(name, labels)) if ruled is None else ruled

    def ruled(self, name: str, labels: Mapping[str, str]) -> str | None:
        """The split that a rule on labels or on the path gives a recording, or None; see ``split``."""
        if name in self._named:
            return self._named[name]
        for split, rule in self._rules:
            if rule.startswith(("order:", "list:")) or "|" in rule:
                raise WavegenError(
                    f"split {split!r} of {name} depends on other files, got {rule!r}; resolve the rules first"
                )
            field, equals, values = rule.partition("=")
            if equals and field not in labels:
                raise WavegenError(
                    f"split {split!r} asks for the label {field!r}, got the fields {sorted(labels)} in "
                    f"{name}; name it in the label pattern"
                )
            if _holds(labels[field], values) if equals else fnmatch.fnmatchcase(name, rule):
                return split
        return None

    def group(self, name: str, labels: Mapping[str, str]) -> str:
        """What a recording shares its split with: its own name, or the value or the folder that ``by`` names.

        Raises:
            WavegenError: the recording does not have the label that ``by`` names.
        """
        if self._by is None:
            return name
        if self._by in labels:
            return labels[self._by]
        if self._by == "folder":
            return name.rpartition("/")[0]
        raise WavegenError(
            f"the splits are made by the label {self._by!r}, got the fields {sorted(labels)} in {name}; name it in the "
            "label pattern, or split by 'folder'"
        )

    def drawn(self, group: str) -> str:
        """The split of a group by the fractions."""
        position = self.position(group)
        for split, share in self._fractions.items():
            if position < share:
                return split
            position -= share
        return "train"

    @staticmethod
    def position(group: str) -> float:
        """A number in [0, 1) from a hash of the group."""
        return int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big") / 2**64


def resolved_splits(splits: Splits, names: Sequence[str], folder: Path) -> Splits:
    """Returns rules of which none depends on other files: parts of an order, and lists in files, become names.

    Args:
        splits: rules, see ``SplitRule``.
        names: of all recordings, paths below the folder with forward slashes.
        folder: of the recordings, and of the lists.

    Raises:
        WavegenError: there is no such list in the folder.

    Example:
        >>> from pathlib import Path
        >>> from wavegen.config.splits import resolved_splits
        >>> resolved_splits({"test": "order:0.5-1"}, ["10.wav", "2.wav"], Path())
        {'test': ['10.wav']}
    """
    known = set(names)
    resolved: dict[str, float | str | Sequence[str]] = dict(splits)
    for split, rule in splits.items():
        if isinstance(rule, str) and "|" in rule:
            pattern, share = _alternatives(rule)
            resolved[split] = pattern if fnmatch.filter(names, pattern) else share
        elif isinstance(rule, str) and rule.startswith("order:"):
            first, last = (int(bound * len(names)) for bound in _part_of(rule))
            resolved[split] = sorted(names, key=_natural)[first:last]
        elif isinstance(rule, str) and rule.startswith("list:"):
            path = folder / rule.removeprefix("list:")
            # The rule may be from the card of a model of somebody else.
            if not is_inside(path, folder):
                raise WavegenError(
                    f"expected a list of names for split {split!r} in {folder}, got {path}; copy it into the folder"
                )
            if not path.is_file():
                raise WavegenError(
                    f"expected a list of names for split {split!r} in {path}, got no such file"
                )
            lines = read_text(path, _LARGEST_LIST, "a list of names", "shorten it").splitlines()
            resolved[split] = sorted(known & {line.strip() for line in lines})
    return resolved


def _alternatives(rule: str) -> tuple[str, float]:
    """Returns the pattern and the fraction of "test/* | 0.05".

    Raises:
        WavegenError: they are not such.
    """
    found = re.fullmatch(r"([^|]*[*/][^|]*?) *\| *(0(?:\.\d*)?|1(?:\.0*)?)", rule)
    if not found:
        raise WavegenError(f"expected a path pattern and a fraction, as in 'test/* | 0.05', got {rule!r}")
    return found[1], float(found[2])


def _part_of(rule: str) -> tuple[float, float]:
    """Returns the bounds of "order:0.88-0.94".

    Raises:
        WavegenError: they are no part of an order.
    """
    found = re.fullmatch(r"order:([\d.]+)-([\d.]+)", rule)
    first, last = (float(found[1]), float(found[2])) if found else (1.0, 0.0)
    if not 0 <= first < last <= 1:
        raise WavegenError(f"expected a part of the files in order, as in 'order:0.88-0.94', got {rule!r}")
    return first, last


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """Returns a key by which numbers within names are compared as numbers."""
    parts = re.split(r"(\d+)", name)
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts if part]


def _holds(label: str, values: str) -> bool:
    """Whether "0-4,7" or "george,lucas" names the label."""
    for value in values.split(","):
        bounds = re.fullmatch(r"(\d+)-(\d+)", value)
        if bounds and label.isdecimal() and int(bounds[1]) <= int(label) <= int(bounds[2]):
            return True
        if label == value.strip():
            return True
    return False
