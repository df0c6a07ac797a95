"""Signed models are served, and others aren't, where signatures are demanded."""

import base64
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from service.__main__ import main
from service.app import create_app
from service.catalog import Catalog
from service.detector import Detector
from service.errors import StartError
from service.manifest import read_manifest
from service.runtime import Runtime
from service.settings import Settings
from service.signatures import Signers, generate_key, parse_signature, sign_file
from tests.manifests import Change, write_manifest
from tests.server import ROOT, environment
from tests.service.conftest import wait_until_ready

CPU = Runtime("cpu")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    generate_key(tmp_path / "key", "release 2026")
    return tmp_path / "key"


@pytest.fixture
def signers(key: Path, tmp_path: Path) -> Signers:
    path = tmp_path / "signers"
    shutil.copy(key.with_name("key.pub"), path)
    return Signers.load(path)


def test_a_signed_folder_is_loaded(folder: Path, key: Path, signers: Signers) -> None:
    assert sign_file(folder / "manifest.json", key) == folder / "manifest.json.sig"
    assert Detector.load(folder, CPU, signers).manifest == read_manifest(folder)
    assert Catalog(folder.parents[1], CPU, signers).open().datasets() == ["thyroid"]


def test_the_name_of_the_key_is_told(folder: Path, key: Path, signers: Signers) -> None:
    path = sign_file(folder / "manifest.json", key)
    assert signers.check((folder / "manifest.json").read_bytes(), path) == "release 2026"


def test_a_folder_without_a_signature(folder: Path, signers: Signers) -> None:
    message = (
        f"{folder}/manifest.json.sig: can't be read .No such file or directory.; RADOGAGA_SIGNERS demands a signature;"
        f" signers by .*/signers: release 2026"
    )
    with pytest.raises(StartError, match=message):
        Detector.load(folder, CPU, signers)


def test_a_folder_that_somebody_else_signed(folder: Path, tmp_path: Path, signers: Signers) -> None:
    generate_key(tmp_path / "other", "other")
    sign_file(folder / "manifest.json", tmp_path / "other")
    with pytest.raises(StartError, match=r"manifest.json.sig: was made by SHA256:\S+, which is no signer; signers by"):
        read_manifest(folder, signers)


def test_a_manifest_that_was_altered_and_sealed_again(
    folder: Path, key: Path, signers: Signers, change_manifest: Callable[[Change], None]
) -> None:
    sign_file(folder / "manifest.json", key)
    change_manifest(lambda manifest: manifest.update(threshold=1e9))
    assert read_manifest(folder).threshold == 1e9
    with pytest.raises(StartError, match=r"manifest.json.sig: is not valid for manifest.json, which was altered"):
        read_manifest(folder, signers)


def test_a_file_that_was_altered_is_not_what_was_signed(folder: Path, key: Path, signers: Signers) -> None:
    sign_file(folder / "manifest.json", key)
    (folder / "scorer.onnx").write_bytes((folder / "encoder.onnx").read_bytes())
    with pytest.raises(StartError, match=r"scorer.onnx: sha256 is "):
        Detector.load(folder, CPU, signers)


@pytest.mark.parametrize("place", ["thyroid/3", "arrhythmia/1"])
def test_a_signed_version_can_not_stand_for_another(folder: Path, key: Path, signers: Signers, place: str) -> None:
    sign_file(folder / "manifest.json", key)
    copy = folder.parents[1] / place
    shutil.copytree(folder, copy)
    with pytest.raises(StartError, match=r"(version|dataset) is '.*', expected '.*' as the folder is called"):
        read_manifest(copy, signers)


def test_keys_are_changed_one_after_the_other(folder: Path, tmp_path: Path, key: Path) -> None:
    generate_key(tmp_path / "next", "release 2027")
    both = tmp_path / "both"
    both.write_text(f"# in turn\n\n{key.with_name('key.pub').read_text()}{(tmp_path / 'next.pub').read_text()}")
    signers = Signers.load(both)
    assert signers.names == ["release 2026", "release 2027"]
    for private in (key, tmp_path / "next"):
        sign_file(folder / "manifest.json", private)
        read_manifest(folder, signers)


def test_any_file_is_signed_and_checked(tmp_path: Path, key: Path, signers: Signers) -> None:
    path = tmp_path / "thresholds.json"
    path.write_text("{}")
    signature = sign_file(path, key)
    assert signature == tmp_path / "thresholds.json.sig"
    signers.check(b"{}", signature)
    with pytest.raises(StartError, match=r"thresholds.json.sig: is not valid for thresholds.json, which was altered"):
        signers.check(b"{} ", signature)


def test_openssh_takes_our_signatures_and_we_take_its(folder: Path, tmp_path: Path, key: Path) -> None:
    """Each bit of the form, held against the program that it comes from."""
    if shutil.which("ssh-keygen") is None:
        pytest.skip("ssh-keygen is not installed")
    manifest = folder / "manifest.json"
    signature = sign_file(manifest, key)
    verify = ["ssh-keygen", "-Y", "check-novalidate", "-n", "radogaga", "-s", str(signature)]
    with manifest.open("rb") as stream:
        assert b'Good "radogaga" signature' in subprocess.run(verify, stdin=stream, capture_output=True).stdout
    theirs = tmp_path / "theirs"
    for command in (
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "theirs", "-f", str(theirs)],
        ["ssh-keygen", "-q", "-Y", "sign", "-n", "radogaga", "-f", str(theirs), str(manifest)],
    ):
        signature.unlink(missing_ok=True)
        subprocess.run(command, check=True, capture_output=True)
    assert Signers.load(tmp_path / "theirs.pub").check(manifest.read_bytes(), signature) == "theirs"
    assert sign_file(manifest, theirs) == signature


def test_every_byte_of_a_signature_counts(folder: Path, key: Path, signers: Signers) -> None:
    manifest = folder / "manifest.json"
    path, content = sign_file(manifest, key), manifest.read_bytes()
    good = path.read_bytes()
    begin, *digits, end = good.decode().splitlines()
    blob = base64.b64decode("".join(digits))
    for i in range(len(blob)):
        changed = bytearray(blob)
        changed[i] ^= 1
        path.write_text(f"{begin}\n{base64.b64encode(changed).decode()}\n{end}\n")
        with pytest.raises(StartError, match=r"manifest.json.sig: (is no|is not valid|was made by)"):
            signers.check(content, path)
    for i in range(len(good) - 2):
        path.write_bytes(good[:i])
        with pytest.raises(StartError, match=r"manifest.json.sig: is no signature"):
            signers.check(content, path)


def string(*values: bytes) -> bytes:
    return b"".join(len(value).to_bytes(4) + value for value in values)


ED = b"ssh-ed25519"
PUBLIC = string(ED, bytes(32))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((PUBLIC, b"git", b"", b"sha512", string(ED, bytes(64))), "its namespace is b'git', expected b'radogaga'"),
        ((PUBLIC, b"radogaga", b"", b"md5", string(ED, bytes(64))), "its hash is b'md5', expected b'sha512'"),
        ((PUBLIC, b"radogaga", b"", b"sha512", string(ED, bytes(63))), "of 63 bytes, expected Ed25519"),
        ((PUBLIC, b"radogaga", b"", b"sha512", string(b"ssh-rsa", bytes(64))), "it is b'ssh-rsa'"),
        ((string(ED, bytes(31)), b"radogaga", b"", b"sha512", string(ED, bytes(64))), "with 31 bytes"),
        ((PUBLIC, b"radogaga", b"", b"sha512"), "it has 4 parts, expected 5"),
        ((PUBLIC, b"radogaga", b"", b"sha512", string(ED, bytes(64)), b"more"), "expected 5 and nothing behind"),
    ],
)
def test_signatures_of_another_form(parts: tuple[bytes, ...], message: str) -> None:
    blob = base64.b64encode(b"SSHSIG\0\0\0\1" + string(*parts)).decode()
    text = f"-----BEGIN SSH SIGNATURE-----\n{blob}\n-----END SSH SIGNATURE-----\n"
    with pytest.raises(ValueError, match=message):
        parse_signature(text.encode())


def test_a_key_that_is_no_point_of_the_curve_signs_nothing(tmp_path: Path) -> None:
    text = base64.b64encode(b"SSHSIG\0\0\0\1" + string(PUBLIC, b"radogaga", b"", b"sha512", string(ED, bytes(64))))
    (tmp_path / "a.sig").write_bytes(b"-----BEGIN SSH SIGNATURE-----\n" + text + b"\n-----END SSH SIGNATURE-----\n")
    (tmp_path / "signers").write_text(f"ssh-ed25519 {base64.b64encode(PUBLIC).decode()} zero")
    with pytest.raises(StartError, match=r"a.sig: is not valid for a, which was altered"):
        Signers.load(tmp_path / "signers").check(b"", tmp_path / "a.sig")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no key, so that nobody could have signed a model"),
        ("# nobody\n\n", "has no key"),
        ("ssh-rsa AAAA x", "line 1 begins with 'ssh-rsa', expected 'ssh-ed25519 <key> <name>'"),
        ("\nssh-ed25519", "line 2 has a key of the kind|line 2 it has 0 parts"),
        ("ssh-ed25519 ???? x", "line 1 has a key that is no base64"),
        ("ssh-ed25519 AAAA x", "line 1 it is cut|line 1 it has"),
        (f"ssh-ed25519 {base64.b64encode(string(b'ssh-rsa', bytes(32))).decode()}", "has a key of the kind b'ssh-rsa'"),
    ],
)
def test_lists_of_signers_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "signers").write_text(text)
    with pytest.raises(StartError, match=message):
        Signers.load(tmp_path / "signers")


def test_lists_of_signers_that_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"signers: can't be read \(No such file or directory\) \(RADOGAGA_SIGNERS\)"):
        Signers.load(tmp_path / "signers")
    with pytest.raises(StartError, match=r"is a folder, expected a regular file \(RADOGAGA_SIGNERS\)"):
        Signers.load(tmp_path)
    (tmp_path / "signers").write_bytes(b"\xff")
    with pytest.raises(StartError, match="signers: is not UTF-8"):
        Signers.load(tmp_path / "signers")


def test_a_list_of_signers_may_be_a_link(tmp_path: Path, key: Path) -> None:
    """As those that Kubernetes mounts are."""
    (tmp_path / "signers").symlink_to(key.with_name("key.pub"))
    assert Signers.load(tmp_path / "signers").names == ["release 2026"]


def test_a_key_without_a_name_is_called_by_its_fingerprint(tmp_path: Path, key: Path) -> None:
    kind, digits, *_ = key.with_name("key.pub").read_text().split()
    (tmp_path / "signers").write_text(f"{kind} {digits}\n")
    (name,) = Signers.load(tmp_path / "signers").names
    assert name.startswith("SHA256:")
    assert len(name) == 50


def test_a_key_is_its_owners_and_never_overwritten(key: Path) -> None:
    assert key.stat().st_mode & 0o777 == 0o600
    before = key.read_bytes()
    with pytest.raises(StartError, match=r"key.pub: is there already, and is not overwritten"):
        generate_key(key, "again")
    key.with_name("key.pub").unlink()
    with pytest.raises(StartError, match=r"key: is there already, and is not overwritten"):
        generate_key(key, "again")
    assert key.read_bytes() == before
    assert not key.with_name("key.pub").exists()
    with pytest.raises(StartError, match=r"nowhere/key: can't be written \(No such file or directory\)"):
        generate_key(key.parent / "nowhere" / "key", "lost")


def test_keys_that_do_not_sign(folder: Path, key: Path, tmp_path: Path) -> None:
    manifest = folder / "manifest.json"
    key.chmod(0o640)
    with pytest.raises(StartError, match="key: has mode 640, so that others may use the key; chmod 600 it"):
        sign_file(manifest, key)
    with pytest.raises(StartError, match="nothing: can't be read"):
        sign_file(manifest, tmp_path / "nothing")
    key.chmod(0o600)
    key.write_text("no key")
    with pytest.raises(StartError, match="key: is no private key without a passphrase in OpenSSH's form"):
        sign_file(manifest, key)
    assert not manifest.with_name("manifest.json.sig").exists()


def test_a_key_of_another_kind_does_not_sign(folder: Path, key: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private = ec.generate_private_key(ec.SECP256R1())
    form, encoding = serialization.PrivateFormat.OpenSSH, serialization.Encoding.PEM
    key.write_bytes(private.private_bytes(encoding, form, serialization.NoEncryption()))
    with pytest.raises(StartError, match="key: is a key of another kind, expected Ed25519"):
        sign_file(folder / "manifest.json", key)


def test_a_signature_that_can_not_be_written(folder: Path, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "mkstemp", full)
    with pytest.raises(StartError, match=r"manifest.json.sig: can't be written \(No space left on device\)"):
        sign_file(folder / "manifest.json", key)


def test_without_the_extra_signatures_can_be_neither_made_nor_demanded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folder: Path, key: Path
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    for attempt in (
        lambda: Signers.load(key.with_name("key.pub")),
        lambda: generate_key(tmp_path / "another", "x"),
        lambda: sign_file(folder / "manifest.json", key),
    ):
        with pytest.raises(StartError, match=r"signatures need the extra \[signatures\], which is not installed"):
            attempt()


def test_the_service_starts_without_the_extra(folder: Path) -> None:
    code = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from service.__main__ import main\n"
        "from service.detector import Detector; from service.runtime import Runtime; from pathlib import Path\n"
        f"Detector.load(Path({str(folder)!r}), Runtime('cpu'))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment(), check=True)


def test_the_service_demands_signatures(folder: Path, models: Path, key: Path) -> None:
    settings = Settings(models=models, signers=key.with_name("key.pub"), provider="cpu")
    sign_file(folder / "manifest.json", key)
    with TestClient(create_app(settings)) as client:
        wait_until_ready(client)
    manifest = json.loads((folder / "manifest.json").read_text())
    write_manifest(folder / "manifest.json", {**manifest, "threshold": 1e9})
    errors: list[StartError] = []
    with TestClient(create_app(settings, on_start_error=errors.append)) as client:
        assert client.get("/health/ready").status_code == 503
    assert "manifest.json.sig: is not valid for manifest.json, which was altered" in str(errors)


def test_the_commands(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["service", *map(str, arguments)])
        return main(), *capsys.readouterr()

    key, overlay = tmp_path / "key", folder.parent / "thresholds.json"
    status, said, _ = run("keygen", key, "--name", "ours")
    assert (status, said) == (0, (tmp_path / "key.pub").read_text())
    assert said.endswith(" ours\n")
    overlay.write_text("{}")
    written = f"wrote {folder}/manifest.json.sig\nwrote {overlay}.sig\n"
    assert run("sign", folder, overlay, "--key", key) == (0, written, "")
    Detector.load(folder, CPU, Signers.load(tmp_path / "key.pub"))
    (folder / "scorer.onnx").write_bytes(b"")
    status, _, error = run("sign", folder, "--key", key)
    assert status == 1
    assert error.startswith(f"error: {folder}/scorer.onnx: sha256 is ")
    assert run("keygen", key) == (1, "", f"error: {key}.pub: is there already, and is not overwritten\n")
    with pytest.raises(SystemExit):
        run("keygen", tmp_path / "new", "--name", " ")
    assert "is ' ', expected printable characters" in capsys.readouterr().err
