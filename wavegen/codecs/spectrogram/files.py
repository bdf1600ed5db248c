"""Codebooks and codes as files: CSV for other programs, safetensors with a description for this one.

CSV has no header: one row of comma-separated values a line for a codebook, one integer a line for codes. Nine
significant digits tell all float32 numbers apart, so that what is written reads back bit for bit.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from wavegen.atomic import atomic_path, atomic_write
from wavegen.errors import WavegenError

CODEC = "spectrogram_vq"


def read_codebook_csv(path: str | Path, bands: int) -> Float32[np.ndarray, "V D"]:
    """Read the rows of a codebook.

    Args:
        path: of the file.
        bands: values of a row, D.

    Raises:
        WavegenError: no such file, no rows, a row of another width, or a value that is no finite number.
    """
    rows = []
    for number, line in _lines(path):
        values = line.split(",")
        if len(values) != bands:
            raise WavegenError(
                f"expected {bands} values, one a band, in line {number} of {path}, got {len(values)}; "
                "describe the frames with the bands that the file has, or repair it"
            )
        try:
            row = np.asarray([float(value) for value in values])
        except ValueError as error:
            raise WavegenError(
                f"expected numbers in line {number} of {path}, got {str(error).split(': ')[-1]}; "
                "remove headers and names of rows"
            ) from None
        if not (np.abs(row) <= np.finfo(np.float32).max).all():
            raise WavegenError(
                f"expected finite float32 numbers in line {number} of {path}, got NaN or more; remove the row"
            )
        rows.append(row)
    return np.asarray(rows, np.float32)


def write_codebook_csv(path: str | Path, codebook: Float32[np.ndarray, "V D"]) -> None:
    """Write the rows of a codebook, a line each.

    Raises:
        WavegenError: the file cannot be written.
    """
    lines = (",".join(f"{value:.9g}" for value in row) for row in codebook.tolist())
    _write_lines(path, lines)


def read_codes_csv(path: str | Path, codebook_size: int) -> Int[np.ndarray, "1 N 1"]:
    """Read codes as the tokens of one clip, int32.

    Args:
        path: of the file.
        codebook_size: codes are below it.

    Raises:
        WavegenError: no such file, no codes, a line that is no integer, or a code outside the codebook.
    """
    codes = []
    for number, line in _lines(path):
        try:
            code = int(line)
        except ValueError:
            raise WavegenError(
                f"expected one integer in line {number} of {path}, got {line[:40]!r}; write one code a line"
            ) from None
        if not 0 <= code < codebook_size:
            raise WavegenError(
                f"expected codes from 0 to {codebook_size - 1} in {path}, got {code} in line {number}; "
                "use the codebook that the codes were made with"
            )
        codes.append(code)
    return np.asarray(codes, np.int32)[None, :, None]


def write_codes_csv(path: str | Path, tokens: Int[np.ndarray, "1 N 1"]) -> None:
    """Write the tokens of one clip, a line each.

    Raises:
        WavegenError: the file cannot be written.
    """
    _write_lines(path, map(str, tokens[0, :, 0].tolist()))


def write_codebook(path: str | Path, tensors: Mapping[str, np.ndarray], card: Mapping[str, Any]) -> None:
    """Write a codebook as NAME.safetensors, whole or not at all.

    Args:
        path: of the file.
        tensors: "codebook", and what belongs to it.
        card: JSON values.

    Raises:
        WavegenError: another ending, or the file cannot be written.
    """
    if Path(path).suffix != ".safetensors":
        raise WavegenError(f"codebooks are written as NAME.safetensors, got {Path(path).name}")
    metadata = {"wavegen": json.dumps({"codec": CODEC, **card})}
    with atomic_path(path) as part:
        save_file(
            {name: np.ascontiguousarray(value) for name, value in tensors.items()}, part, metadata=metadata
        )


def read_codebook(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read what `write_codebook` wrote.

    Raises:
        WavegenError: no such file, or not one of these.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        card = json.loads(metadata.get("wavegen", "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise WavegenError(f"{path} is not a readable codebook ({error}); fit or copy it again") from None
    if card.get("codec") != CODEC or "codebook" not in tensors:
        raise WavegenError(f"{path} holds no spectrogram codebook; use a file of wavegen fit-codebook")
    return tensors, card


def _lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """The numbered lines of a text file, which has at least one; blank ones only at its end."""
    try:
        # Spreadsheets put a byte order mark in front.
        lines = Path(path).read_text(encoding="utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is no text" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise WavegenError(f"cannot read {path}: {reason}; give a CSV file") from None
    if not lines:
        raise WavegenError(f"expected at least one line in {path}, got an empty file; write it again")
    return iter(enumerate(lines, start=1))


def _write_lines(path: str | Path, lines: Iterator[str]) -> None:
    with atomic_write(path) as file:
        file.writelines(f"{line}\n".encode() for line in lines)
