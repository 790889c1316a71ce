"""Zarr shards of a plate: how chunks are packed, checked and read."""

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import google_crc32c
import numcodecs  # type: ignore[import-untyped]
import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.core.buffer import Buffer
from zarr.storage import MemoryStore

from wscnn.core.errors import UserError

# Bit-shuffled lz4 packs images twice as fast as zstd and unpacks them three times as fast, at the cost of a tenth more
# bytes (a fifth with 8 bits). The checksum makes a flipped bit an error instead of a wrong pixel.
_CODECS = (BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle"), Crc32cCodec())


# Keys of an array's metadata that describe its layout in bytes.
_LAYOUT = ["chunk_grid", "chunk_key_encoding", "codecs", "zarr_format", "node_type"]


_BLOSC = numcodecs.Blosc(cname="lz4", clevel=5, shuffle=numcodecs.Blosc.BITSHUFFLE)


@contextmanager
def _broken(where: Path | str, what: str, stage: str = "stage") -> Iterator[None]:
    """Report whatever a block fails on as damage to the file or well at `where`, and which `stage` repairs it."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:  # any exception here comes from broken metadata or pixels
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(f"{where}: damaged {what} ({reason}); {stage} the plate again") from None


def _array_metadata(folder: Path) -> dict[str, Any]:
    if not (folder / "zarr.json").is_file():
        raise UserError(f"{folder}: no such image; run the stage that makes it first")
    return dict(json.loads((folder / "zarr.json").read_bytes()))


def _shard_digests(found: Mapping[str, Any], owner: str) -> list[str] | None:
    """Return the digests of an array's shards, verified to be the `owner`'s; None where an earlier version wrote it."""
    pixels = found.get("attributes", {}).get("wscnn")
    if pixels is None:
        return None
    if pixels["owner"] != owner:
        raise ValueError(f"these are the pixels of {pixels['owner']}, not of {owner}")
    return list(pixels["shards"])


def _read_planes(
    folder: Path,
    found: Mapping[str, Any],
    lead: tuple[int, ...],
    indices: Sequence[tuple[int, ...]],
    digests: Sequence[str] | None,
) -> list[np.ndarray]:
    """Return the (y, x) planes at `indices` of an array of shape (*lead, y, x) that `_write_array` made.

    Zarr's own reader takes several times as long as unpacking, and silently reads a missing shard as zeros.

    Parameters
    ----------
    folder, found
        Of the array, and its metadata.
    lead, indices See above. digests
        Of all shards of the array in order; None where they are not to be verified.
    """
    shape, dtype = tuple(found["shape"]), np.dtype(found["data_type"])
    rows, columns = found["codecs"][0]["configuration"]["chunk_shape"][-2:]
    expected = json.loads(_array_text(shape, dtype, (rows, columns)))
    other = [key for key in _LAYOUT if found[key] != expected[key]]
    if shape[:-2] != lead or dtype.kind != "u" or other:
        raise ValueError(f"not as it was written: {dtype}, shape {shape}{''.join(f', {key}' for key in other)}")
    planes = []
    for index in indices:
        shard = folder.joinpath("c", *map(str, index), "0", "0")
        if not shard.is_file() or shard.stat().st_size == 0:
            raise UserError(f"{folder}: pixels are missing; delete the plate's folder and stage it again")
        plane, digest = _unshard(shard.read_bytes(), shape[-2:], dtype, (rows, columns))
        if digests is not None and digests[list(np.ndindex(lead)).index(index)] != digest:
            raise ValueError(f"the shard {shard.relative_to(folder)} is of other pixels, according to its digest")
        planes.append(plane)
    return planes


def _digest(content: object) -> str:
    """Return a digest of content that JSON can hold."""
    return sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()[:32]


def _write_array(folder: Path, image: np.ndarray, cell: tuple[int, int], owner: str) -> dict[str, Any]:
    """Write an array with one chunk per cell and one shard per (y, x) plane; return the attributes that wscnn adds.

    These are the `owner` (plate, well and, of a label, its name) and the digest of each shard in order.
    """
    digests = []
    for index in np.ndindex(image.shape[:-2]):
        shard = folder.joinpath("c", *map(str, index), "0", "0")
        shard.parent.mkdir(parents=True, exist_ok=True)
        content, digest = _shard(image[index], cell)
        shard.write_bytes(content)
        digests.append(digest)
    pixels = {"owner": owner, "shards": digests}
    metadata = json.loads(_array_text(image.shape, image.dtype, cell)) | {"attributes": {"wscnn": pixels}}
    (folder / "zarr.json").write_text(json.dumps(metadata, allow_nan=False))
    return pixels


@cache
def _array_text(shape: tuple[int, ...], dtype: np.dtype, cell: tuple[int, int]) -> bytes:
    """Return the metadata of an array, the same for every well of a plate."""
    lead = (1,) * (len(shape) - 2)
    written: dict[str, Buffer] = {}
    zarr.create_array(
        MemoryStore(written),
        shape=shape,
        chunks=(*lead, *cell),
        shards=(*lead, *shape[-2:]),
        dtype=dtype,
        compressors=_CODECS,
        dimension_names=["c", "y", "x"][-len(shape) :],
    )
    return written["zarr.json"].to_bytes()


def _shard(plane: np.ndarray, cell: tuple[int, int]) -> tuple[bytes, str]:
    """Return a (y, x) plane as one Zarr shard: its chunks, each with a checksum, then the index of their positions.

    Also return the shard's digest, which is computed from its checksums, without a second pass over the pixels.

    Zarr's own writer takes several times as long as compression; the layout follows the specification (sharding codec
    1.0, index at the end). Chunks that hold only zeros are written too: a missing shard then always means lost data.
    """
    rows, columns = plane.shape[0] // cell[0], plane.shape[1] // cell[1]
    index = np.empty((rows, columns, 2), "<u8")
    parts = []
    start = 0
    for row, column in np.ndindex(rows, columns):
        chunk = plane[row * cell[0] : (row + 1) * cell[0], column * cell[1] : (column + 1) * cell[1]]
        packed = pack(chunk)
        index[row, column] = start, len(packed)
        start += len(packed)
        parts.append(packed)
    parts.append(_checksummed(index.tobytes()))
    return b"".join(parts), _shard_digest(parts)


def _shard_digest(parts: Sequence[bytes]) -> str:
    """Return the digest of a shard whose chunks and index, each with its checksum at the end, are `parts`."""
    return sha256(b"".join(part[-4:] for part in parts)).hexdigest()[:32]


def _unshard(shard: bytes, shape: tuple[int, int], dtype: np.dtype, cell: tuple[int, int]) -> tuple[np.ndarray, str]:
    """Return the plane that `_shard` packed and the digest; ValueError where a checksum or a size is wrong."""
    rows, columns = shape[0] // cell[0], shape[1] // cell[1]
    size = rows * columns * 16 + 4  # of the index: two numbers per chunk, and a checksum
    index = np.frombuffer(_checked(shard[-size:]), "<u8").reshape(rows, columns, 2)
    plane = np.empty(shape, dtype)
    checksums = []
    for row, column in np.ndindex(rows, columns):
        start, length = index[row, column].tolist()
        checksums.append(shard[max(start, start + length - 4) : start + length])
        chunk = np.frombuffer(_BLOSC.decode(_checked(shard[start : start + length])), dtype.newbyteorder("<"))
        plane[row * cell[0] : (row + 1) * cell[0], column * cell[1] : (column + 1) * cell[1]] = chunk.reshape(cell)
    return plane, _shard_digest([*checksums, shard[-4:]])


def pack(chunk: np.ndarray) -> bytes:
    """Return a chunk as it is stored: compressed, with its checksum."""
    return _checksummed(_BLOSC.encode(np.ascontiguousarray(chunk, chunk.dtype.newbyteorder("<"))))


def _checksummed(data: bytes) -> bytes:
    return data + struct.pack("<I", google_crc32c.value(data))


def _checked(data: bytes) -> bytes:
    """Return the content that `_checksummed` was given."""
    content = data[:-4]
    if _checksummed(content) != data:
        raise ValueError("a checksum is wrong")
    return content
