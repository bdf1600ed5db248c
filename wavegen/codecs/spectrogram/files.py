"""Codebooks and codes as files: CSV for other programs, safetensors with a description for this one.

CSV has no header. A codebook has one row of comma-separated values per line, codes have one integer per line. Nine
significant digits distinguish all float32 numbers, so that a written codebook reads back bit for bit.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int

from wavegen.atomic import atomic_write
from wavegen.errors import WavegenError
from wavegen.sealed import read_sealed, write_sealed

CODEC = "spectrogram_vq"


def read_codebook_csv(path: str | Path, bands: int) -> Float32[np.ndarray, "V D"]:
    """Reads the rows of a codebook.

    Args:
        path: path of the file.
        bands: values per row, D.

    Raises:
        WavegenError: if there is no such file, it has no rows, a row has another width, or a value is not a finite
            number.
    """
    rows = []
    for number, line in _lines(path):
        values = line.split(",")
        if len(values) != bands:
            raise WavegenError(
                f"expected {bands} values, one per band, in line {number} of {path}, got {len(values)}; "
                "describe the frames with the bands of the file, or repair it"
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
                f"expected finite float32 numbers in line {number} of {path}, got NaN or a larger one; remove the row"
            )
        rows.append(row)
    return np.asarray(rows, np.float32)


def write_codebook_csv(path: str | Path, codebook: Float32[np.ndarray, "V D"]) -> None:
    """Writes the rows of a codebook, one per line.

    Args:
        path: path of the file.
        codebook: the rows.

    Raises:
        WavegenError: if the file cannot be written.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from wavegen.codecs.spectrogram.files import read_codebook_csv, write_codebook_csv
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_codebook_csv(f"{folder}/book.csv", np.array([[0.5, -80.0]], np.float32))
        ...     read_codebook_csv(f"{folder}/book.csv", bands=2).tolist()
        [[0.5, -80.0]]
    """
    lines = (",".join(f"{value:.9g}" for value in row) for row in codebook.tolist())
    _write_lines(path, lines)


def read_codes_csv(path: str | Path, codebook_size: int) -> Int[np.ndarray, "1 N 1"]:
    """Reads codes as the tokens of one clip, int32.

    Args:
        path: path of the file.
        codebook_size: number of codes; all are below it.

    Raises:
        WavegenError: if there is no such file, it has no codes, a line is not an integer, or a code is outside the
            codebook.
    """
    codes = []
    for number, line in _lines(path):
        try:
            code = int(line)
        except ValueError:
            raise WavegenError(
                f"expected one integer in line {number} of {path}, got {line[:40]!r}; write one code per line"
            ) from None
        if not 0 <= code < codebook_size:
            raise WavegenError(
                f"expected codes from 0 to {codebook_size - 1} in {path}, got {code} in line {number}; "
                "use the codebook that the codes were made with"
            )
        codes.append(code)
    return np.asarray(codes, np.int32)[None, :, None]


def write_codes_csv(path: str | Path, tokens: Int[np.ndarray, "1 N 1"]) -> None:
    """Writes the tokens of one clip, one per line.

    Raises:
        WavegenError: if the file cannot be written.
    """
    _write_lines(path, map(str, tokens[0, :, 0].tolist()))


def write_codebook(path: str | Path, tensors: Mapping[str, np.ndarray], card: Mapping[str, Any]) -> None:
    """Writes a codebook as NAME.safetensors, whole or not at all.

    Args:
        path: path of the file.
        tensors: "codebook", and further tensors that belong to it.
        card: JSON values that describe it.

    Raises:
        WavegenError: if the name has another ending, or the file cannot be written.
    """
    write_sealed(path, tensors, {"codec": CODEC, **card})


def read_codebook(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads a file of ``write_codebook``.

    Returns:
        The tensors and the card.

    Raises:
        WavegenError: if there is no such file, or it was not written by ``write_codebook``.
    """
    tensors, card = read_sealed(path)
    if card.get("codec") != CODEC or "codebook" not in tensors:
        raise WavegenError(f"{path} holds no spectrogram codebook; use a file of wavegen fit-codebook")
    return tensors, card


def _lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Returns the numbered lines of a text file, which has at least one; blank lines at its end are ignored."""
    try:
        # Spreadsheets write a byte order mark first.
        lines = Path(path).read_text(encoding="utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is not text" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise WavegenError(f"cannot read {path}: {reason}; give a CSV file") from None
    if not lines:
        raise WavegenError(f"expected at least one line in {path}, got an empty file; write it again")
    return iter(enumerate(lines, start=1))


def _write_lines(path: str | Path, lines: Iterator[str]) -> None:
    with atomic_write(path) as file:
        file.writelines(f"{line}\n".encode() for line in lines)
