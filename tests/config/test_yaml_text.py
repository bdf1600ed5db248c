"""YAML of any content is a tree, or one line that says what is wrong, and soon."""

import os

import pytest

from wavegen.config import resolve
from wavegen.config.files import read_tree
from wavegen.errors import WavegenError

# Ten aliases of ten aliases of ..., 30 deep: as a list, and as merged mappings.
LAUGHS = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 30))
MERGES = "a0: &a0 {x: 1}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{','.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 30)
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 60_000, "at most 64 levels"),
        (b"{a: " * 10_000, "at most 64 levels"),
        (b"- " * 30_000, "at most 64 levels"),
        (b"? " * 30_000, "at most 64 levels"),
        (LAUGHS.encode(), "at most 20000 values with all aliases written out"),
        (MERGES.encode(), "at most 20000 values with all aliases written out"),
        (b"a: &a [*a]", "an alias that contains itself"),
        (b"a: !!int abc", "a value does not fit its tag"),
        (b"a: !!bool maybe", "a value does not fit its tag"),
        (b"a: !!timestamp never", "a value does not fit its tag"),
        (b'a: !!float ""', "a value does not fit its tag"),
        (b"a: 1" + b":1" * 30_000, "numbers of at most 100 characters"),
        (b"a: " + b"9" * 10_000, "numbers of at most 100 characters"),
        ("a: \u00e9".encode("latin-1"), "expected a configuration in UTF-8, got the byte 0xe9 at 3"),
        ("a: 1".encode("utf-16"), "expected a configuration in UTF-8"),
        (b"a: \0", "not valid YAML"),
        (b"#" * 70_000, "expected at most 65536 bytes, got 70000: shorten it"),
        (b"- 1", "must hold key: value pairs, got list"),
    ],
)
def test_what_is_no_tree_of_a_configuration_is_one_line(tmp_path, content, message):
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(WavegenError, match=message) as caught:
        read_tree(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


def test_dates_are_text_and_a_byte_order_mark_is_none(tmp_path):
    path = tmp_path / "good.yaml"
    path.write_bytes(b"\xef\xbb\xbfday: 2026-13-01\nrate: 1e-4\nagain: &x {a: 1}\nmore: *x\n")
    assert read_tree(path) == {"day": "2026-13-01", "rate": 1e-4, "again": {"a": 1}, "more": {"a": 1}}


def test_what_does_not_end_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    for path, got in ((tmp_path / "pipe.yaml", "a pipe"), ("/dev/zero", "a device"), (tmp_path, "a folder")):
        with pytest.raises(WavegenError, match=f"expected a configuration, got {got} at this path"):
            read_tree(path)


def test_values_of_overrides_are_read_as_strictly():
    with pytest.raises(WavegenError, match="the value of 'seed' is not valid YAML: a value does not fit"):
        resolve({}, ["seed=!!int many"])
