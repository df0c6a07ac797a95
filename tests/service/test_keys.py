"""The file of keys: what is written into it, what is read from it, and what is refused."""

import hashlib
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from service.__main__ import main
from service.keys import FIRST_LINE, MOST_BYTES, PREFIX, KeysError, add_key, digest_of, read_keys, revoke_key

HASH = "sha256:" + hashlib.sha256(b"one").hexdigest()
OTHER = "sha256:" + hashlib.sha256(b"two").hexdigest()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def test_a_new_key_is_random_and_only_its_hash_is_kept(path: Path) -> None:
    first = add_key(path, "ci", ["score"])
    second = add_key(path, "scraper", ["metrics", "score"], date(2027, 1, 1))
    assert first.startswith(PREFIX)
    assert len(first) == len(second) == len(PREFIX) + 43  # 256 bits in base 64
    assert first != second
    assert first not in path.read_text()
    keys, _ = read_keys(path)
    assert [(key.name, key.scopes, key.expires) for key in keys] == [
        ("ci", frozenset({"score"}), None),
        ("scraper", frozenset({"score", "metrics"}), date(2027, 1, 1)),
    ]
    assert [key.digest for key in keys] == [hashlib.sha256(key.encode()).digest() for key in (first, second)]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_others_wrote_into_the_file_stays(path: Path) -> None:
    path.write_text(f"# ours\n\nci score {HASH} # until spring\nold score {OTHER}")
    path.chmod(0o640)
    add_key(path, "new", ["admin"])
    revoke_key(path, "old")
    text = path.read_text()
    assert text.startswith(f"# ours\n\nci score {HASH} # until spring\nnew admin sha256:")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [entry.name for entry in path.parent.iterdir()] == ["keys"]


def test_a_link_to_the_file_stays_a_link(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(path)
    add_key(link, "ci", ["score"])
    assert link.is_symlink()
    assert path.read_text().startswith(FIRST_LINE)


def test_keys_that_are_added_at_once_are_all_there(path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda number: add_key(path, f"key-{number}", ["score"]), range(24)))
    assert {key.digest for key in read_keys(path)[0]} == {digest_of(key.encode()) for key in keys}


def test_a_key_ends_when_its_day_begins(path: Path) -> None:
    path.write_text(f"ci score {HASH} 2027-01-01\nfor-ever score {OTHER}\n")
    dated, undated = read_keys(path)[0]
    assert dated.until == datetime(2027, 1, 1, tzinfo=UTC).timestamp()
    assert undated.until == float("inf")


def test_no_hash_is_shown(path: Path) -> None:
    path.write_text(f"ci score {HASH}\n")
    (key,) = read_keys(path)[0]
    assert repr(key) == "Key(name='ci', scopes=frozenset({'score'}), expires=None)"


WRONG = [
    ("ci score\n", "line 1: has 2 fields, expected name, scopes, hash and perhaps a date"),
    (f"# x\nci score {HASH} 2027-01-01 x\n", "line 2: has 5 fields"),
    (f"c/i score {HASH}\n", "line 1: the name is 'c/i', expected up to 64 letters"),
    (f"ci read {HASH}\n", "line 1: a scope is 'read', expected score, metrics, admin"),
    (f"ci score, {HASH}\n", "line 1: a scope is '', expected"),
    (f"ci score {HASH[:-1]}\n", "line 1: the hash of 'ci' has 70 characters, expected sha256: and 64 hex digits"),
    (f"ci score {HASH.upper()}\n", "line 1: the hash of 'ci' has 71 characters, expected sha256: and 64 hex digits"),
    (f"ci score {HASH} 2027-13-01\n", "line 1: the date is '2027-13-01', expected one like 2027-01-01"),
    (f"ci score {HASH}\nci score {OTHER}\n", "line 2: the name of 'ci' is that of line 1"),
    (f"ci score {HASH}\nbi score {HASH}\n", "line 2: the key of 'bi' is that of line 1"),
    ("ci score \udcff\n", "byte 9 is not UTF-8"),
    ("#" * (MOST_BYTES + 1), f"has more than {MOST_BYTES} bytes"),
]


@pytest.mark.parametrize(("text", "message"), WRONG, ids=[message[:40] for _, message in WRONG])
def test_what_is_wrong_is_named(path: Path, text: str, message: str) -> None:
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(KeysError) as caught:
        read_keys(path)
    assert str(caught.value).startswith(f"RADOGAGA_KEYS: {path}")
    assert message in str(caught.value)


def test_a_key_in_the_place_of_its_hash_is_not_shown(path: Path) -> None:
    path.write_text("ci score rdg_secret\n")
    with pytest.raises(KeysError, match="has 10 characters") as caught:
        read_keys(path)
    assert "secret" not in str(caught.value)


def test_a_file_that_everybody_may_write_is_refused(path: Path) -> None:
    path.write_text(f"ci score {HASH}\n")
    path.chmod(0o602)
    with pytest.raises(KeysError, match=r"everybody may write it \(mode 0602\)"):
        read_keys(path)


def test_a_file_that_is_not_there(path: Path) -> None:
    with pytest.raises(KeysError, match=r"keys: No such file or directory"):
        read_keys(path)


def test_a_file_that_cannot_be_changed_stays_as_it_is(path: Path) -> None:
    text = f"ci score {HASH}\nci score {HASH}\n"
    path.write_text(text)
    with pytest.raises(KeysError, match="line 2"):
        add_key(path, "new", ["score"])
    assert path.read_text() == text
    with pytest.raises(KeysError, match="nowhere/keys: No such file or directory"):
        add_key(path.parent / "nowhere" / "keys", "ci", ["score"])


@dataclass
class Done:
    """What a command did."""

    returncode: int
    stdout: str
    stderr: str


Command = Callable[..., Done]


@pytest.fixture
def command(path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs `python -m service key` in this process."""

    def run(*arguments: str, keys: str | None = None) -> Done:
        monkeypatch.setenv("RADOGAGA_KEYS", str(path) if keys is None else keys)
        monkeypatch.setattr("sys.argv", ["service", "key", *arguments])
        try:
            status = main()
        except SystemExit as end:
            status = int(str(end.code))
        return Done(status, *capsys.readouterr())

    return run


def test_the_commands(path: Path, command: Command) -> None:
    past = datetime.now(UTC).date() - timedelta(days=2)
    added = command("add", "ci", "--scopes", "metrics,score")
    assert added.returncode == 0
    key = added.stdout.strip()
    assert added.stderr == f"'ci' is added to {path}. The key is shown this once:\n"
    assert [known.digest for known in read_keys(path)[0]] == [digest_of(key.encode())]
    command("add", "old", "--expires", str(past))
    listed = command("list")
    assert listed.stdout == f"ci  score,metrics  does not expire\nold  score  expired on {past}\n"
    again = command("add", "ci")
    assert (again.returncode, again.stdout) == (1, "")
    assert "there is a key called 'ci'" in again.stderr
    assert command("revoke", "ci").returncode == 0
    assert [known.name for known in read_keys(path)[0]] == ["old"]
    unknown = command("revoke", "ci")
    assert (unknown.returncode, unknown.stderr) == (
        1,
        f"error: RADOGAGA_KEYS: {path}: no key is called 'ci', only old\n",
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["add", "a b"], "'a b' is not up to 64 letters"),
        (["add", "ci", "--scopes", "read"], "a scope is 'read', expected score, metrics, admin"),
        (["add", "ci", "--expires", "soon"], "the date is 'soon', expected one like 2027-01-01"),
        ([], "required"),
    ],
)
def test_wrong_commands(path: Path, command: Command, arguments: list[str], message: str) -> None:
    done = command(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert not path.exists()


def test_commands_need_the_setting(command: Command) -> None:
    done = command("list", keys="")
    assert (done.returncode, done.stderr) == (1, "error: RADOGAGA_KEYS is not set; it names the file of keys\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_the_owner_of_the_file_stays(path: Path) -> None:
    path.write_text(f"ci score {HASH}\n")
    os.chown(path, 1234, 1235)
    add_key(path, "new", ["score"])
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 1235)
