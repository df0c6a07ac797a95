"""Files are taken from the cache or downloaded, and never used unchecked; the network is played by a stand-in."""

import hashlib
from pathlib import Path

import httpx
import pytest

from training.datasets.files import DatasetFileError, RemoteFile, cache_folder, fetch

CONTENT = b"some rows" * 100
FILE = RemoteFile("sets/a.bin", "https://data.test/a", hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))


def answering(content: bytes = CONTENT, status: int = 200) -> httpx.MockTransport:
    return httpx.MockTransport(lambda _: httpx.Response(status, content=content))


def no_network() -> httpx.MockTransport:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("Name or service not known", request=request)

    return httpx.MockTransport(refuse)


def left_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_missing_file_is_downloaded_once(tmp_path: Path) -> None:
    path = fetch(FILE, tmp_path, answering())
    assert path == tmp_path / "sets" / "a.bin"
    assert path.read_bytes() == CONTENT
    assert left_in(tmp_path) == [path]
    assert fetch(FILE, tmp_path, no_network()) == path


def test_redirections_are_followed(tmp_path: Path) -> None:
    def redirect(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/a":
            return httpx.Response(302, headers={"location": "https://elsewhere.test/b"})
        return httpx.Response(200, content=CONTENT)

    assert fetch(FILE, tmp_path, httpx.MockTransport(redirect)).read_bytes() == CONTENT


def test_without_a_network_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DatasetFileError) as caught:
        fetch(FILE, tmp_path, no_network())
    path = tmp_path / "sets" / "a.bin"
    assert str(caught.value) == (
        f"{path} is missing and https://data.test/a did not send it (Name or service not known)."
        f" Put the file at {path} by hand, or set RADOGAGA_DATA to a folder that holds sets/a.bin."
    )
    assert left_in(tmp_path) == []


def test_an_address_that_answers_with_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetFileError, match=r"did not send it \(Client error '404 Not Found'"):
        fetch(FILE, tmp_path, answering(b"gone", 404))
    assert left_in(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (CONTENT[:-5], "What https://data.test/a sent is cut short: it has 895 of 900 bytes. Run again, or: Put"),
        (b"", "is cut short: it has 0 of 900 bytes"),
        (CONTENT + b"more", f"is not the published file: its sha256 is .*, expected {FILE.sha256}"),
        (b"S" + CONTENT[1:], f"is not the published file: its sha256 is .*, expected {FILE.sha256}"),
    ],
)
def test_a_download_that_is_not_the_file_is_not_kept(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DatasetFileError, match=message):
        fetch(FILE, tmp_path, answering(content))
    assert left_in(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (CONTENT[:100], "a.bin is cut short: it has 100 of 900 bytes. Delete it and run again to download it afresh."),
        (b"S" + CONTENT[1:], "a.bin is not the published file: its sha256 is .*Delete it and run again"),
    ],
)
def test_a_cached_file_that_is_not_the_file_is_refused_and_kept(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "sets" / "a.bin"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(DatasetFileError, match=message):
        fetch(FILE, tmp_path, answering())
    assert path.read_bytes() == content


def test_a_cache_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "sets").write_text("a file where the folder should be")
    with pytest.raises(DatasetFileError, match=r"is missing and can't be written \(.*\)\. Put the file at"):
        fetch(FILE, tmp_path, answering())


def test_an_endless_download_is_cut_off(tmp_path: Path) -> None:
    sent = 0

    class Endless(httpx.SyncByteStream):
        def __iter__(self):  # type: ignore[no-untyped-def]  # noqa: ANN204
            nonlocal sent
            while True:
                sent += 1
                yield b"x" * 1000

    transport = httpx.MockTransport(lambda _: httpx.Response(200, stream=Endless()))
    with pytest.raises(DatasetFileError, match="is not the published file"):
        fetch(FILE, tmp_path, transport)
    assert sent < 200


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RADOGAGA_DATA", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("RADOGAGA_DATA")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "radogaga"
