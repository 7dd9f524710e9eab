"""Written files that know whether somebody changed them since."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from lensmith.errors import InputError, Problem
from lensmith.files import write_atomically

# A line of every file that is written here; its digest is of the file with this line as it stands.
SEAL = "# Written by lensmith launch, sha256:"
_SEALED = re.compile(rf"^{re.escape(SEAL)}[0-9a-f]{{64}}$", re.MULTILINE)


def sealed(text: str) -> str:
    """`text` with the digest of itself in its line SEAL."""
    assert text.count(f"\n{SEAL}\n") == 1
    digest = hashlib.sha256(text.encode()).hexdigest()
    return text.replace(f"\n{SEAL}\n", f"\n{SEAL}{digest}\n")


def is_untouched(data: bytes) -> bool:
    """Whether the bytes are what `sealed` made, for whichever training."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return False
    return len(_SEALED.findall(text)) == 1 and sealed(_SEALED.sub(SEAL, text)) == text


def write_sealed(path: Path, text: str, force: bool = False) -> None:
    """Write `text` sealed to `path`, whole or not at all. Made anew over what was written so before.

    Raises InputError where the file there was changed, or is none of ours, unless `force`; and where nothing
    can be written there.
    """
    try:
        if not force and path.exists() and not is_untouched(path.read_bytes()):
            what = "was changed since it was written, or was not written by this command"
            raise InputError(f"{path} is not overwritten", [Problem(what, str(path), "move it, or --force")])
        write_atomically(path, sealed(text).encode())
    except OSError as error:
        problem = Problem(error.strerror or str(error), str(path), "choose another place: -o DIR")
        raise InputError("nothing can be written there", [problem]) from error
