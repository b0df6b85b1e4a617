"""A disk to write to, past all caches: the one below a folder, or a loop device where there is none."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


class Disk:
    """number: `major:minor`. file: where one may write to it with O_DIRECT."""

    def __init__(self, number: str, file: Path) -> None:
        self.number = number
        self.file = file
        self.entry = dict(zip(("major", "minor"), map(int, number.split(":")), strict=True))

    def write(self, count: int, size: str) -> list[str]:
        """The command that writes `count` blocks of `size`."""
        return ["dd", "if=/dev/zero", f"of={self.file}", f"bs={size}", f"count={count}", "oflag=direct", "conv=notrunc"]


@contextlib.contextmanager
def below(folder: Path) -> Iterator[Disk]:
    """The disk that holds a folder; skips the test where there is none."""
    facts = os.stat(folder).st_dev
    place = Path(f"/sys/dev/block/{os.major(facts)}:{os.minor(facts)}")
    if place.exists():
        place = place.resolve()
        whole = place.parent if (place / "partition").exists() else place
        yield Disk((whole / "dev").read_text().strip(), folder / "written")
        return
    image = folder / "disk"
    with image.open("wb") as file:
        file.truncate(16 << 20)
    made = subprocess.run(["losetup", "-f", "--show", str(image)], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"{folder} isn't on a disk, and there are no loop devices: {made.stderr.strip()}")
    node = Path(made.stdout.strip())
    number = os.stat(node).st_rdev
    try:
        yield Disk(f"{os.major(number)}:{os.minor(number)}", node)
    finally:
        subprocess.run(["losetup", "-d", str(node)], check=True)


def seconds(run: object) -> float:
    """How long a call takes."""
    assert callable(run)
    begin = time.monotonic()
    run()
    return time.monotonic() - begin
