"""Signatures of models, if an operator demands them: Ed25519 in OpenSSH's form (SSHSIG).

A manifest has the digest of every file of its folder, so that a signature of its bytes in ``manifest.json.sig``
covers the folder, with its dataset and version. ``ssh-keygen -Y sign -n radogaga`` writes the same signatures, and
``ssh-keygen -Y check-novalidate -n radogaga`` reads them. What this needs (the extra `[signatures]`) is imported only
when signatures are made or demanded.
"""

import base64
import binascii
import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.errors import StartError
from service.files import read_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SUFFIX = ".sig"
"""What a signature's file is called behind the name of the file it signs."""

NAMESPACE = b"radogaga"
"""Keeps a signature that the same key made for another purpose from counting here."""

KEY_TYPE = b"ssh-ed25519"
MAGIC, HASH = b"SSHSIG", b"sha512"
VERSION = (1).to_bytes(4)
BEGIN, END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"

MOST_SIGNATURE_BYTES, MOST_KEY_BYTES, MOST_SIGNERS_BYTES = 4096, 16_384, 2**20
KEY_BYTES, SIGNATURE_BYTES = 32, 64


class Signers:
    """The keys whose signatures count.

    Arguments:
        keys: Their names by the 32 bytes of the public key.
        source: What errors call the list of them.
    """

    def __init__(self, keys: Mapping[bytes, str], source: Path) -> None:
        self._keys, self._source = keys, source

    @classmethod
    def load(cls, path: Path) -> "Signers":
        """Reads public keys as ``ssh-keygen`` writes them: a line ``ssh-ed25519 <base64> <name>`` each.

        Empty lines and those that begin with # count for nothing.

        Raises:
            StartError: The extra `[signatures]` is not installed, or the file can't be read, has a line that is no
                Ed25519 key, or no key.
        """
        require_cryptography()
        keys: dict[bytes, str] = {}
        try:
            lines = read_signers(path).decode().splitlines()
        except UnicodeDecodeError as error:
            raise StartError(f"{path}: is not UTF-8 ({error.reason} at byte {error.start})") from None
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            try:
                key, name = parse_public_key(line)
            except ValueError as error:
                raise StartError(f"{path}: line {number} {error}, expected 'ssh-ed25519 <key> <name>'") from None
            keys[key] = name
        if not keys:
            raise StartError(f"{path}: has no key, so that nobody could have signed a model (RADOGAGA_SIGNERS)")
        return cls(keys, path)

    @property
    def names(self) -> list[str]:
        """The names of the keys, in the order of their file."""
        return list(self._keys.values())

    def check(self, content: bytes, signature_path: Path) -> str:
        """Checks the signature of a file's bytes, and returns the name of the key that made it.

        Raises:
            StartError: The signature is missing or none, was made by another key or of other bytes; the text names
                its file and the signers that count.
        """
        known = f"; signers by {self._source}: {', '.join(self.names)}"
        try:
            text = read_file(signature_path, MOST_SIGNATURE_BYTES)
        except StartError as error:
            raise StartError(f"{error}; RADOGAGA_SIGNERS demands a signature{known}") from error
        try:
            key, signature = parse_signature(text)
        except ValueError as error:
            raise StartError(f"{signature_path}: is no signature ({error}){known}") from None
        if key not in self._keys:
            raise StartError(f"{signature_path}: was made by {fingerprint(key)}, which is no signer{known}")
        if not is_valid(key, signature, message_of(content)):
            raise StartError(f"{signature_path}: is not valid for {signature_path.stem}, which was altered{known}")
        return self._keys[key]


def read_signers(path: Path) -> bytes:
    """Returns the bytes of the list of signers, wherever links lead to it: it is the operator's own.

    Raises:
        StartError: It can't be read, or is too large.
    """
    try:
        return read_file(path.resolve(strict=True), MOST_SIGNERS_BYTES)
    except OSError as error:
        raise StartError(f"{path}: can't be read ({error.strerror}) (RADOGAGA_SIGNERS)") from error
    except StartError as error:
        raise StartError(f"{error} (RADOGAGA_SIGNERS)") from error


def sign_file(path: Path, key: Path) -> Path:
    """Signs a file's bytes, and returns the signature's path, ``<path>.sig``; one that is there is replaced.

    Arguments:
        path: What is signed.
        key: The private key, as `generate_key` or ``ssh-keygen -t ed25519`` writes it, without a passphrase.

    Raises:
        StartError: The file or the key can't be read, the key is none, is readable for others, or the signature
            can't be written.
    """
    private = load_private_key(key)
    content = read_file(path, limit=2**30)
    public = public_bytes(private.public_key())
    signature = private.sign(message_of(content))
    blob = MAGIC + VERSION + _strings(_strings(KEY_TYPE, public), NAMESPACE, b"", HASH, _strings(KEY_TYPE, signature))
    digits = base64.b64encode(blob).decode()
    lines = [BEGIN, *(digits[i : i + 70] for i in range(0, len(digits), 70)), END]
    target = path.with_name(path.name + SUFFIX)
    try:
        _replace(target, "\n".join(lines) + "\n")
    except OSError as error:
        raise StartError(f"{target}: can't be written ({error.strerror})") from error
    return target


def generate_key(path: Path, name: str) -> str:
    """Writes a new private key, for its owner only, and ``<path>.pub`` beside it; returns the public key's line.

    Arguments:
        path: Where to; nothing that is there is overwritten.
        name: What the key is called in lists of signers.

    Raises:
        StartError: One of the files is there already, or can't be written.
    """
    require_cryptography()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.generate()
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH
    content = private.private_bytes(encoding, form, serialization.NoEncryption())
    key = base64.b64encode(_strings(KEY_TYPE, public_bytes(private.public_key()))).decode()
    line = f"{KEY_TYPE.decode()} {key} {name}"
    public = path.with_name(f"{path.name}.pub")
    if public.exists():
        raise StartError(f"{public}: is there already, and is not overwritten")
    _write_new(path, content, 0o600)
    _write_new(public, f"{line}\n".encode(), 0o644)
    return line


def load_private_key(path: Path) -> "Ed25519PrivateKey":
    """Reads a private key.

    Raises:
        StartError: It can't be read, is open to others than its owner, has a passphrase, or is no Ed25519 key.
    """
    require_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    content = read_file(path, MOST_KEY_BYTES)
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise StartError(f"{path}: has mode {mode:o}, so that others may use the key; chmod 600 it")
    try:
        key = load_ssh_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise StartError(f"{path}: is no private key without a passphrase in OpenSSH's form ({error})") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise StartError(f"{path}: is a key of another kind, expected Ed25519")
    return key


def message_of(content: bytes) -> bytes:
    """Returns what is really signed for some bytes: their digest, and what it is for."""
    return MAGIC + _strings(NAMESPACE, b"", HASH, hashlib.sha512(content).digest())


def parse_public_key(line: str) -> tuple[bytes, str]:
    """Returns the 32 bytes of a public key, and its name, the fingerprint if it has none.

    Raises:
        ValueError: The line is no Ed25519 key; the text says what it has.
    """
    kind, _, rest = line.strip().partition(" ")
    if kind != KEY_TYPE.decode():
        raise ValueError(f"begins with {kind[:40]!r}")
    digits, _, name = rest.strip().partition(" ")
    try:
        key = _key_of(base64.b64decode(digits, validate=True))
    except binascii.Error as error:
        raise ValueError(f"has a key that is no base64 ({error})") from None
    return key, name.strip() or fingerprint(key)


def parse_signature(text: bytes) -> tuple[bytes, bytes]:
    """Returns the public key that a signature's file names, and the signature's 64 bytes.

    Raises:
        ValueError: The file is none of a signature by Ed25519 for this purpose; the text says what it has.
    """
    lines = text.decode("ascii").split()
    begin, end = BEGIN.split(), END.split()
    if lines[: len(begin)] != begin or lines[-len(end) :] != end:
        raise ValueError("it is not between BEGIN and END SSH SIGNATURE")
    blob = base64.b64decode("".join(lines[len(begin) : -len(end)]), validate=True)
    if not blob.startswith(MAGIC + VERSION):
        raise ValueError("it is no SSHSIG of version 1")
    parts = _split(blob[len(MAGIC + VERSION) :], 5)
    key, namespace, _, algorithm, signature = parts
    if namespace != NAMESPACE:
        raise ValueError(f"its namespace is {namespace[:40]!r}, expected {NAMESPACE!r}")
    if algorithm != HASH:
        raise ValueError(f"its hash is {algorithm[:40]!r}, expected {HASH!r}")
    kind, digits = _split(signature, 2)
    if kind != KEY_TYPE or len(digits) != SIGNATURE_BYTES:
        raise ValueError(f"it is {kind[:40]!r} of {len(digits)} bytes, expected Ed25519")
    return _key_of(key), digits


def is_valid(key: bytes, signature: bytes, message: bytes) -> bool:
    """Tells whether a key has signed a message."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):  # a ValueError says that the bytes are no point of the curve
        return False
    return True


def public_bytes(key: "Ed25519PublicKey") -> bytes:
    """Returns the 32 bytes of a public key."""
    return key.public_bytes_raw()


def fingerprint(key: bytes) -> str:
    """Returns what ``ssh-keygen -l`` calls a key."""
    digest = hashlib.sha256(_strings(KEY_TYPE, key)).digest()
    return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


def require_cryptography() -> Any:  # noqa: ANN401 - a module
    """Returns the module that signatures need.

    Raises:
        StartError: It is not installed.
    """
    try:
        import cryptography
    except ImportError:
        raise StartError("signatures need the extra [signatures], which is not installed") from None
    return cryptography


def _strings(*values: bytes) -> bytes:
    """Writes byte strings as SSH does, each behind its length."""
    return b"".join(len(value).to_bytes(4) + value for value in values)


def _split(content: bytes, count: int) -> list[bytes]:
    """Reads as many byte strings as there have to be.

    Raises:
        ValueError: There are more or fewer.
    """
    found: list[bytes] = []
    while content and len(found) < count:
        length = int.from_bytes(content[:4])
        if len(content) < 4 + length:
            raise ValueError("it is cut")
        found.append(content[4 : 4 + length])
        content = content[4 + length :]
    if content or len(found) != count:
        raise ValueError(f"it has {len(found)} parts, expected {count} and nothing behind")
    return found


def _key_of(blob: bytes) -> bytes:
    kind, key = _split(blob, 2)
    if kind != KEY_TYPE or len(key) != KEY_BYTES:
        raise ValueError(f"has a key of the kind {kind[:40]!r} with {len(key)} bytes")
    return key


def _write_new(path: Path, content: bytes, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except FileExistsError:
        raise StartError(f"{path}: is there already, and is not overwritten") from None
    except OSError as error:
        raise StartError(f"{path}: can't be written ({error.strerror})") from error
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)


def _replace(path: Path, text: str) -> None:
    """Writes a file that is there as a whole or not at all."""
    descriptor, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "w") as stream:
            stream.write(text)
        Path(beside).chmod(0o644)
        Path(beside).replace(path)
    finally:
        Path(beside).unlink(missing_ok=True)
