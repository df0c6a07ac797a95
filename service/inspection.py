"""What a serialised ONNX graph may hold, looked at before onnxruntime does.

A graph is its own bytes and nothing else. ONNX lets tensors lie in other files, nodes come from other libraries or hold
graphs that run as long as they like, and onnxruntime would take its own format in ONNX's place; none of it is needed
here. The file is a protocol buffer; of its messages only what leads to these is walked through.
"""

from collections.abc import Iterator

from service.errors import StartError

MOST_FIELDS = 1_000_000
"""Fields that are looked at; the largest shipped graph has some thousands."""

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Protocol buffers' wire types; 3 and 4 are groups, which ONNX has none of."""

ORT_FORMAT = b"ORTM"
"""What onnxruntime's own format has at its bytes 4 to 7."""

DOMAINS = (b"", b"ai.onnx")
"""Whose operators a graph may use: ONNX's own. Others may load files or libraries (`EPContext`, for example)."""

PARTS = {
    "model": {7: "graph", 8: "opset"},
    "graph": {1: "node", 5: "tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 10: "tensor"},
    "opset": {},
    "tensor": {},
}
"""Which fields of a message hold further ones."""

REFUSED = {
    "model": {20: "training_info", 25: "functions"},
    "graph": {15: "sparse_initializer"},
    "attribute": {
        6: "a graph inside a node",
        11: "graphs inside a node",
        22: "a sparse tensor",
        23: "sparse tensors",
    },
    "tensor": {13: "external_data, a tensor in another file"},
}
"""Fields that no message may have."""

DOMAIN = {"node": 7, "opset": 1}

DATA_LOCATION = 14
"""A tensor's field that says whether its values lie elsewhere; 0 is here."""


def check_graph(content: bytes) -> None:
    """Checks that a graph is ONNX, stands for itself and has ONNX's own operators only.

    Raises:
        StartError: It isn't; the text names what it holds.
    """
    if content[4:8] == ORT_FORMAT:
        raise StartError("is in onnxruntime's own format, expected ONNX")
    try:
        graphs = _Walk(content).walk("model", 0, len(content))
    except ValueError as error:
        raise StartError(f"is no ONNX graph ({error})") from None
    if not graphs:
        raise StartError("is no ONNX graph (it has no field graph)")


class _Walk:
    """One walk through the messages of a file; counts fields, so that it ends."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._fields = 0

    def walk(self, message: str, start: int, end: int) -> int:
        """Looks at a message, and returns how many messages it holds that have to be looked at, too.

        Raises:
            ValueError: The bytes are no such message.
            StartError: It holds what it may not.
        """
        parts, refused, found = PARTS[message], REFUSED.get(message, {}), 0
        for number, wire_type, at, value in self._read(start, end):
            if number in refused:
                raise StartError(f"has {refused[number]}, which is not taken")
            if message == "tensor" and number == DATA_LOCATION and value:
                raise StartError("has a tensor whose data_location is another file, which is not taken")
            if number in parts and wire_type == BYTES:
                found += parts[number] == "graph"
                self.walk(parts[number], at, at + value)
            if number == DOMAIN.get(message) and wire_type == BYTES:
                domain = self._content[at : at + value]
                if domain not in DOMAINS:
                    name = domain[:60].decode(errors="replace")
                    raise StartError(f"has operators of the domain '{name}', expected ONNX's own")
        return found

    def _read(self, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """Yields each field's number, wire type, where its bytes begin, and its value or how many bytes it has."""
        while at < end:
            self._fields += 1
            if self._fields > MOST_FIELDS:
                raise ValueError(f"more than {MOST_FIELDS} fields")
            tag, at = self._varint(at, end)
            number, wire_type, value = tag >> 3, tag & 7, 0
            if not 0 < number < 2**29:
                raise ValueError(f"field number {number} before byte {at}")
            if wire_type == VARINT:
                value, after = self._varint(at, end)
            elif wire_type == BYTES:
                value, at = self._varint(at, end)
                after = at + value
            elif wire_type in (FIXED32, FIXED64):
                after = at + (4 if wire_type == FIXED32 else 8)
            else:
                raise ValueError(f"wire type {wire_type} before byte {at}")
            if after > end:
                raise ValueError(f"a field that ends {after - end} bytes behind its message")
            yield number, wire_type, at, value
            at = after

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        value = shift = 0
        while at < end and shift < 70:
            byte = self._content[at]
            value |= (byte & 127) << shift
            at, shift = at + 1, shift + 7
            if byte < 128:
                return value, at
        raise ValueError(f"a number without an end at byte {at}")
