"""The bundle's files as they were made: SHA256SUMS in the assets, in the form of sha256sum. `python -m localr1.verifying.checksums` rewrites it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from localr1 import paths
from localr1.files import write_whole
from localr1.verifying.lines import Line, gate

SUMS = "SHA256SUMS"
FOLDERS = ("goldens", "r1-tiny", "r1-tiny-teacher")
KINDS = (".json", ".npz", ".py", ".safetensors")  # what is computed with; cards and pictures are not


def covered(assets: Path) -> dict[str, Path]:
    """The files that are there, by their names in the list."""
    files = (file for folder in FOLDERS for file in sorted((assets / folder).rglob("*")) if file.suffix in KINDS and file.is_file())
    return {file.relative_to(assets).as_posix(): file for file in files}


def listed(assets: Path) -> dict[str, str]:
    """Sums by name. Raises OSError: there is no list; ValueError: a line is none of sha256sum's."""
    sums = {}
    for line in (assets / SUMS).read_text(encoding="utf-8").splitlines():
        digest, name = line.split("  ", 1)
        sums[name] = digest
    return sums


def checksums(assets: Path) -> Iterator[Line]:
    files, sums = covered(assets), listed(assets)
    wrong = sorted(name for name in files.keys() | sums.keys() if name not in files or sums.get(name) != _digest(files[name]))
    note = f"{len(sums)} files"
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        note = f"{wrong[0]}{more} {'differ' if more else 'differs'} from {SUMS}; reinstall localr1"
    yield gate("checksums of the bundle", len(wrong), 0, "wrong", note)


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def main() -> None:
    assets = paths.assets()
    files = covered(assets)
    write_whole(assets / SUMS, "".join(f"{_digest(file)}  {name}\n" for name, file in files.items()))
    print(f"{assets / SUMS}: {len(files)} files")


if __name__ == "__main__":
    main()
