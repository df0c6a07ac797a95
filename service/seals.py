"""Files of JSON that carry their own digest, so that a byte that changes by accident doesn't change their meaning.

The digest is that of the file with 64 zeros in its place. Whoever can write the file can seal it anew: against that
there are `service.signatures`.
"""

import hashlib

UNSEALED = "0" * 64
"""What stands in the digest's place while it is computed."""


def sealed(text: str) -> str:
    """Returns a text with its digest in the last place where it has `UNSEALED`."""
    before, _, behind = text.rpartition(UNSEALED)
    return before + hashlib.sha256(text.encode()).hexdigest() + behind


def check_seal(content: bytes, sha256: str) -> None:
    """Checks that a file's bytes are those it was sealed with.

    Arguments:
        content: The file's bytes.
        sha256: The digest that it carries.

    Raises:
        ValueError: They are not.
    """
    digits = sha256.encode()
    if content.count(digits) != 1:
        raise ValueError(f"sha256 is there {content.count(digits)} times as {sha256}, expected once")
    digest = hashlib.sha256(content.replace(digits, UNSEALED.encode())).hexdigest()
    if digest != sha256:
        raise ValueError(f"sha256 is {sha256}, but the file's is {digest}: it was altered")
