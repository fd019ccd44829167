"""What an ONNX file says of itself: its inputs, and the metadata that `earface export` writes. OpenCV reads neither."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from earface.core.errors import InputError

# Field numbers of onnx.proto3
GRAPH, METADATA = 7, 14  # of ModelProto
INPUT = 11  # of GraphProto
NAME, TYPE = 1, 2  # of ValueInfoProto
TENSOR_TYPE = 1  # of TypeProto
SHAPE = 2  # of TypeProto.Tensor
DIMENSION, SIZE = 1, 1  # of TensorShapeProto and its dimensions
KEY, VALUE = 1, 2  # of StringStringEntryProto
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types


@dataclass(frozen=True)
class OnnxMetadata:
    """inputs: name -> shape, 0 where it is free. properties: the metadata, as texts."""

    inputs: dict[str, tuple[int, ...]]
    properties: dict[str, str]


def read_onnx_metadata(path: Path) -> OnnxMetadata:
    """Raises InputError for a file that cannot be read or is no ONNX model."""
    try:
        content = path.read_bytes()
        model = dict_of(content)
        graph = dict_of(model[GRAPH][0])
        inputs = {}
        for each in graph.get(INPUT, []):
            value = dict_of(each)
            tensor = dict_of(dict_of(value[TYPE][0])[TENSOR_TYPE][0])
            sizes = [dict_of(dimension).get(SIZE, [0])[0] for dimension in dict_of(tensor[SHAPE][0])[DIMENSION]]
            inputs[_text(value[NAME][0])] = tuple(size if isinstance(size, int) else 0 for size in sizes)
        entries = [dict_of(each) for each in model.get(METADATA, [])]
        properties = {_text(entry[KEY][0]): _text(entry.get(VALUE, [b""])[0]) for entry in entries}
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except (IndexError, KeyError, TypeError, ValueError, OverflowError, MemoryError):
        pointer = content.startswith(b"version https://git-lfs")
        what = "a Git LFS pointer, not the file that it points to" if pointer else "not an ONNX file"
        raise InputError(f"{path}: {what}") from None
    return OnnxMetadata(inputs, properties)


def dict_of(message: bytes | int) -> dict[int, list[bytes | int]]:
    """Field number -> its values, of a protobuf message. Raises ValueError for other bytes."""
    fields: dict[int, list[bytes | int]] = {}
    if isinstance(message, int):
        raise ValueError("a number, not a message")
    for number, value in _fields(message):
        fields.setdefault(number, []).append(value)
    return fields


def _fields(message: bytes) -> Iterator[tuple[int, bytes | int]]:
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            value, place = _varint(message, place)
            yield number, value
            continue
        if wire not in (FIXED64, BYTES, FIXED32):
            raise ValueError("not a protobuf message")
        length = {FIXED64: 8, FIXED32: 4}.get(wire)
        if length is None:
            length, place = _varint(message, place)
        if place + length > len(message):
            raise ValueError("ends early")
        yield number, message[place : place + length]
        place += length


def _varint(message: bytes, place: int) -> tuple[int, int]:
    """The number that starts at `place`, and the place behind it."""
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if not byte & 0x80:
            return value, place
        if shift > 63:
            raise ValueError("not a protobuf message")


def _text(value: bytes | int) -> str:
    if isinstance(value, int):
        raise ValueError("a number, not a text")
    return value.decode()
