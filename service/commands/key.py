"""``python -m service key``: adds, lists and revokes API keys in the file that RADOGAGA_KEYS names."""

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from service.keys import KEY_NAME, SCOPES, Key, KeysError, add_key, date_of, read_keys, revoke_key, scopes_of
from service.settings import Settings

NAME = "key"
HELP = "add, list and revoke API keys"
DESCRIPTION = """Add, list and revoke API keys in the file RADOGAGA_KEYS. Services that use it see the change within a
second. The file has hashes alone: a key is shown once, when it is added. Exit status: 0 if done, 1 if not, 2 for a
wrong command."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what the command takes."""
    commands = parser.add_subparsers(dest="key_command", title="commands", required=True)
    add = commands.add_parser("add", help="make a key, and show it once")
    add.add_argument("name", type=name_in_argument, help="what the key is called in the log")
    add.add_argument(
        "--scopes",
        type=scopes_in_argument,
        default=frozenset({"score"}),
        help=f"what it is good for, of {', '.join(SCOPES)}, with commas between; score unless given",
    )
    add.add_argument(
        "--expires", type=date_in_argument, metavar="DATE", help="the first day (UTC) on which it isn't good"
    )
    commands.add_parser("list", help="show names, scopes and dates")
    commands.add_parser("revoke", help="take a key out").add_argument("name", help="what it is called")


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Carries out a command; returns 0, or 1 with the reason on standard error."""
    if settings.keys is None:
        print("error: RADOGAGA_KEYS is not set; it names the file of keys", file=sys.stderr)
        return 1
    try:
        carry_out(options, settings.keys)
    except KeysError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def carry_out(options: argparse.Namespace, path: Path) -> None:
    """Carries out a command.

    Raises:
        KeysError: The file can't be read, or not be changed so.
    """
    if options.key_command == "add":
        key = add_key(path, options.name, options.scopes, options.expires)
        print(f"'{options.name}' is added to {path}. The key is shown this once:", file=sys.stderr)
        print(key)
    elif options.key_command == "revoke":
        revoke_key(path, options.name)
        print(f"'{options.name}' is revoked", file=sys.stderr)
    else:
        today = datetime.now(UTC)
        print("".join(described(key, today) for key in read_keys(path)[0]), end="")


def described(key: Key, now: datetime) -> str:
    """Returns a line about a key."""
    scopes = ",".join(scope for scope in SCOPES if scope in key.scopes)
    if key.expires is None:
        until = "does not expire"
    else:
        until = f"expire{'d' if key.until <= now.timestamp() else 's'} on {key.expires}"
    return f"{key.name}  {scopes}  {until}\n"


def name_in_argument(text: str) -> str:
    """Returns a key's name."""
    if not KEY_NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not up to 64 letters, digits, dots, dashes or underscores")
    return text


def scopes_in_argument(text: str) -> frozenset[str]:
    """Returns scopes."""
    try:
        return scopes_of(text, "--scopes")
    except KeysError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def date_in_argument(text: str) -> object:
    """Returns a date."""
    try:
        return date_of(text, "--expires")
    except KeysError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
