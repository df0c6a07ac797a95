"""Bodies as long as they may be, made to take time or memory."""

import io
import struct
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from backports import zstd

from tests.chaos.bars import Outcome
from tests.chaos.samples import ARROW, CSV, DATASET, INFER, JSON, NPY, RAW, rows_of
from tests.chaos.wire import Hang, Malformed, Wire, request
from tests.load.processes import cpu_seconds
from tests.server import Server, serving

MB = 2**20
LONGEST = 32 * MB
"""What the service reads of a body unless it is set otherwise."""

BEHIND = 200
"""Bytes that are left for what stands around the part that is repeated."""

MOST_SECONDS = 6.0
"""CPU time that one body may take."""

MOST_MEGABYTES = 640.0
"""Memory that one body may take beside the service's own: twenty times its bytes."""

PATIENCE = 60.0


@dataclass(frozen=True)
class Hostile:
    """A body that is made to hurt.

    Attributes:
        name: What it is.
        target: Its path and query.
        headers: Its header.
        make: Makes it, of some length.
    """

    name: str
    target: str
    headers: Mapping[str, str]
    make: Callable[[int], bytes]


def fill(part: bytes, length: int) -> bytes:
    """Repeats a part, as often as there is room."""
    return part * (max(0, length - BEHIND) // len(part))


def repeated(before: bytes, part: bytes, behind: bytes) -> Callable[[int], bytes]:
    """Makes bodies of a part that is repeated."""
    return lambda length: before + fill(part, length) + behind


VECTORS = b'{"dataset":"thyroid","vectors":['
TENSOR = b'{"name":"vectors","datatype":"FP32","shape":[1,6],"data":[1,1,1,1,1,1]}'


def keys(length: int) -> bytes:
    """Makes an object of as many keys as there is room for."""
    return b"{" + b",".join(b'"%07x":1' % number for number in range((length - BEHIND) // 12)) + b"}"


def names(length: int) -> bytes:
    """Makes a line of as many names as there is room for."""
    return b",".join(b"%07x" % number for number in range((length - BEHIND) // 8)) + b"\n1,2\n"


def npy(header: bytes, values: bytes = b"") -> bytes:
    """Writes a .npy file with a header of our own."""
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", len(header)) + header + values


def empty_batches(length: int) -> bytes:
    """Makes an Arrow stream of batches without rows."""
    sink = pa.BufferOutputStream()
    schema = pa.schema([(name, pa.float32()) for name in "abcdef"])
    batch = pa.record_batch([pa.array([], pa.float32())] * len(schema), schema=schema)
    with pa.ipc.new_stream(sink, schema) as writer:
        first = sink.tell()
        writer.write_batch(batch)
        for _ in range((length - first) // (sink.tell() - first) - 2):
            writer.write_batch(batch)
    return bytes(sink.getvalue())


def many_columns(length: int) -> bytes:
    """Makes an Arrow stream of as many columns as there is room for."""
    columns = [pa.array([1], pa.float32())] * (length // 400)
    batch = pa.record_batch(columns, names=[str(number) for number in range(len(columns))])
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


def last_is_null(length: int) -> bytes:
    """Makes an Arrow stream whose very last value is null."""
    values = rows_of(min(16_384, length // 32)).ravel()
    lists = pa.FixedSizeListArray.from_arrays(pa.array(values, mask=np.arange(values.size) == values.size - 1), 6)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, pa.schema([("x", lists.type)])) as writer:
        writer.write_batch(pa.record_batch([lists], names=["x"]))
    return sink.getvalue()


def skipped(length: int) -> bytes:
    """Makes a frame of zstd that says nothing."""
    return bytes.fromhex("502a4d18") + struct.pack("<I", length - BEHIND) + bytes(length - BEHIND)


CLAIMS_TERABYTES = bytes.fromhex("28b52ffde0") + struct.pack("<Q", 2**42) + bytes.fromhex("010000")
ASKS_FOR_A_WINDOW = bytes.fromhex("28b52ffd00ff010000")
NO_ROWS = b"{'descr':'<f8','fortran_order':False,'shape':(1,%s)}" % (b"9" * 9000)

TEXTS: dict[str, Callable[[int], bytes]] = {
    "brackets": repeated(b"", b"[", b""),
    "nested rows": repeated(VECTORS, b"[", b""),
    "nested objects": repeated(b"", b'{"a":', b""),
    "numbers without end": repeated(VECTORS, b"[1e999999,1,1,1,1,1],", b"[1]]}"),
    "one row of numbers without end": repeated(VECTORS + b"[", b"1e999999,", b"1]]}"),
    "tiny rows": repeated(VECTORS, b"[1],", b"[1]]}"),
    "empty rows": repeated(VECTORS, b"[],", b"[1]]}"),
    "empty rows, and no number": repeated(VECTORS, b"[],", b"1e999]}"),
    "objects for rows": repeated(VECTORS, b"{},", b"[1]]}"),
    "texts for rows": repeated(VECTORS, b'"",', b"[1]]}"),
    "texts for rows, and no number": repeated(VECTORS, b'"aa",', b"1e999]}"),
    "a text": repeated(VECTORS + b'"', b"a", b'"]}'),
    "escapes": repeated(VECTORS + b'"', b"\\u00e9", b'"]}'),
    "halves of surrogates": repeated(VECTORS + b'"', b"\\ud800", b'"]}'),
    "keys": keys,
    "a key": repeated(b'{"', b"k", b'":1}'),
    "an integer": repeated(VECTORS + b"[", b"9", b"]]}"),
    "a fraction": repeated(VECTORS + b"[0.", b"9", b"]]}"),
    "long integers": repeated(VECTORS + b"[", b"9" * 400 + b",", b"1]]}"),
    "a version": repeated(b'{"dataset":"thyroid","version":', b"9", b',"vectors":[[1]]}'),
    "spaces": repeated(b"", b" ", b""),
    "zeros": repeated(b"", b"\0", b""),
    "ragged rows": repeated(VECTORS, b"[1,1,1,1,1,1],", b"[1,1]]}"),
}

LINES: dict[str, Callable[[int], bytes]] = {
    "commas": repeated(b"", b",", b""),
    "line feeds": repeated(b"x", b"\n", b""),
    "tiny rows": repeated(b"", b"1\n", b""),
    "tiny rows under a name": repeated(b'"a"\n', b"1\n", b""),
    "tiny rows, ended by returns": repeated(b"", b"1\r", b""),
    "names": names,
    "quotation marks": repeated(b"", b'"', b'"'),
    "empty cells in quotation marks": repeated(b"", b'"",', b""),
    "infinities": repeated(b"", b"inf,1,1,1,1,1\n", b""),
    "a cell": repeated(b"", b"9", b""),
    "tiny rows under a long name": lambda length: b"a" * 131_000 + b"\n" + fill(b"1\n", length - 131_000),
}

TENSORS: dict[str, Callable[[int], bytes]] = {
    "fields": lambda length: b'{"inputs":[' + TENSOR + b"]," + keys(length - BEHIND)[1:],
    "parameters": lambda length: b'{"inputs":[' + TENSOR + b'],"parameters":' + keys(length - BEHIND) + b"}",
    "a parameter": repeated(b'{"inputs":[' + TENSOR + b'],"parameters":{"a":[', b"[],", b"1]}}"),
    "data": repeated(b'{"inputs":[' + TENSOR[:-13], b"1,", b"1]}]}"),
    "rows of data": repeated(b'{"inputs":[' + TENSOR[:-13], b"[],", b"1]}]}"),
    "sizes": repeated(b'{"inputs":[{"name":"vectors","datatype":"FP32","shape":[', b"1,", b"1]}]}"),
    "inputs": repeated(b'{"inputs":[', b'{"name":"vectors"},', b'{"name":"vectors"}]}'),
    "outputs": repeated(b'{"inputs":[' + TENSOR + b'],"outputs":[', b'{"name":"scores"},', b"{}]}"),
    "an id": repeated(b'{"inputs":[' + TENSOR + b'],"id":"', "é".encode(), b'"}'),
    "an id of brackets": repeated(b'{"inputs":[' + TENSOR + b'],"id":"', b"[", b'"}'),
}

FILES: dict[str, tuple[str, Callable[[int], bytes]]] = {
    "npy: a header of spaces": (NPY, lambda length: npy(b" " * (length - BEHIND))),
    "npy: a header of brackets": (NPY, lambda _: npy(b"(" * 9999)),
    "npy: a header of signs": (NPY, lambda _: npy(b"-" * 9998 + b"1")),
    "npy: a size of 9,000 digits": (NPY, lambda _: npy(NO_ROWS)),
    "npy: one row": (
        NPY,
        lambda length: npy(
            b"{'descr':'<i1','fortran_order':False,'shape':(1,%d)}" % (length - BEHIND), bytes(length - BEHIND)
        ),
    ),
    "arrow: batches without rows": (ARROW, empty_batches),
    "arrow: columns": (ARROW, many_columns),
    "arrow: a null at the end": (ARROW, last_is_null),
    "arrow: zeros": (ARROW, bytes),
    "arrow: empty messages": (ARROW, repeated(b"", b"\xff\xff\xff\xff\x08" + bytes(11), b"")),
    "raw: more rows than are taken": (RAW, lambda length: bytes(length // 24 * 24)),
}

PACKED: dict[str, tuple[str, Callable[[int], bytes]]] = {
    "gzip: a gigabyte of spaces": ("gzip", lambda length: zlib.compress(b" " * (32 * length), 9, 31)),
    "gzip: empty rows": ("gzip", lambda length: zlib.compress(TEXTS["empty rows"](length), 9, 31)),
    "gzip: brackets": ("gzip", lambda length: zlib.compress(TEXTS["nested rows"](length), 9, 31)),
    "gzip: empty blocks": ("gzip", repeated(bytes.fromhex("1f8b0800000000000003"), bytes.fromhex("000000ffff"), b"")),
    "gzip: a name": ("gzip", repeated(bytes.fromhex("1f8b0808000000000003"), b"n", b"")),
    "zstd: a gigabyte of spaces": ("zstd", lambda length: zstd.compress(b" " * (32 * length))),
    "zstd: a frame that claims terabytes": ("zstd", lambda _: CLAIMS_TERABYTES),
    "zstd: a window of terabytes": ("zstd", lambda _: ASKS_FOR_A_WINDOW),
    "zstd: empty frames": ("zstd", repeated(b"", zstd.compress(b""), b"")),
    "zstd: a frame that is skipped": ("zstd", skipped),
}

SCORE = f"/score?dataset={DATASET}"

BODIES = [
    *(Hostile(f"json: {name}", "/score", {"content-type": JSON}, make) for name, make in TEXTS.items()),
    *(Hostile(f"csv: {name}", SCORE, {"content-type": CSV}, make) for name, make in LINES.items()),
    *(Hostile(f"v2: {name}", INFER, {"content-type": JSON}, make) for name, make in TENSORS.items()),
    *(Hostile(name, SCORE, {"content-type": kind}, make) for name, (kind, make) in FILES.items()),
    *(
        Hostile(name, "/score", {"content-type": JSON, "content-encoding": encoding}, make)
        for name, (encoding, make) in PACKED.items()
    ),
]


@dataclass(frozen=True)
class Cost:
    """What a body took.

    Attributes:
        name: Which.
        answer: The status, or what came instead.
        seconds: CPU time.
        megabytes: Memory at the peak, above what the service had before.
    """

    name: str
    answer: int | str
    seconds: float
    megabytes: float


def run(folder: Path, scale: float) -> Outcome:
    """Sends every body to a service of its own, as long as the scale says, and judges the worst."""
    length = max(MB, round(LONGEST * scale))
    with serving(folder / "hostile.log") as server:
        with server.client():
            url = server.url()
        costs = [send(server, url, body, length) for body in BODIES]
    return judge(costs)


def send(server: Server, url: str, body: Hostile, length: int) -> Cost:
    """Sends a body, and says what it took."""
    pid, wire = server.process.pid, Wire(url, PATIENCE)
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak begins anew
    memory, seconds = megabytes(pid, "VmRSS"), cpu_seconds(pid)
    answer: int | str
    began = time.monotonic()
    try:
        wire.send(request("POST", body.target, body.headers, body.make(length)))
        reply = wire.reply()
        answer = reply.status if reply else "closed"
    except (Hang, Malformed) as error:
        answer = f"{error} in {time.monotonic() - began:.0f} s"
    finally:
        wire.close()
    return Cost(body.name, answer, cpu_seconds(pid) - seconds, megabytes(pid, "VmHWM") - memory)


def megabytes(pid: int, name: str) -> float:
    """Returns one of the kernel's figures of a process's memory."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(f"{name}:"))


def judge(costs: list[Cost]) -> Outcome:
    """Says which bodies took more than they may, and which were the worst."""
    failures = []
    for cost in costs:
        if not isinstance(cost.answer, int) or cost.answer >= 500:
            failures.append(f"{cost.name}: {cost.answer}")
        if cost.seconds > MOST_SECONDS:
            failures.append(f"{cost.name}: {cost.seconds:.1f} s of CPU, at most {MOST_SECONDS:g} are allowed")
        if cost.megabytes > MOST_MEGABYTES:
            failures.append(f"{cost.name}: {cost.megabytes:.0f} MB, at most {MOST_MEGABYTES:g} are allowed")
    slow, large = max(costs, key=lambda cost: cost.seconds), max(costs, key=lambda cost: cost.megabytes)
    return Outcome(
        {
            "hostile bodies": len(costs),
            "most CPU for one, s": round(slow.seconds, 2),
            "which one took it": slow.name,
            "most memory for one, MB": round(large.megabytes, 1),
            "which one needed it": large.name,
        },
        failures,
    )
