"""``python -m service keygen`` and ``sign``: keys for models, and signatures of them."""

import argparse
import getpass
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from service.detector import read_files
from service.errors import StartError
from service.manifest import MANIFEST, manifest_of, open_model
from service.signatures import generate_key, sign_file

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_signing(commands: "Commands") -> None:
    """Adds the commands to a command line."""
    keygen = commands.add_parser(
        "keygen", help="make a key that models are signed with", description="Write a new private key and <key>.pub."
    )
    keygen.add_argument("key", type=Path, help="where to; nothing is overwritten")
    keygen.add_argument("--name", type=one_line, help="what lists of signers call it; user@host unless given")
    sign = commands.add_parser(
        "sign",
        help="sign model folders, or single files such as models/thyroid/thresholds.json",
        description="Check each model folder's files, and write its manifest.json.sig; or <file>.sig for a file.",
    )
    sign.add_argument("paths", type=Path, nargs="+", metavar="path", help="such as models/thyroid/1")
    sign.add_argument("--key", type=Path, required=True, help="the private key")


def one_line(text: str) -> str:
    """Reads a key's name."""
    if not text.strip() or not text.isprintable():
        raise argparse.ArgumentTypeError(f"is {text!r}, expected printable characters")
    return text.strip()


def keygen(options: argparse.Namespace) -> int:
    """Makes a key, and prints the line of it that a list of signers takes."""
    name = options.name or f"{getpass.getuser()}@{socket.gethostname()}"
    return _told(lambda: print(generate_key(options.key, name)))


def sign(options: argparse.Namespace) -> int:
    """Signs model folders and files, and prints which signatures were written."""

    def write() -> None:
        for path in options.paths:
            print(f"wrote {sign_file(_checked(path) if path.is_dir() else path, options.key)}")

    return _told(write)


def _checked(folder: Path) -> Path:
    """Returns the path of a model folder's manifest, once every file is what it says."""
    with open_model(folder) as opened:
        read_files(opened, manifest_of(opened))
    return folder / MANIFEST


def _told(command: Callable[[], None]) -> int:
    try:
        command()
    except StartError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


SIGNING: dict[str, Callable[[argparse.Namespace], int]] = {"keygen": keygen, "sign": sign}
"""The commands by their names."""
