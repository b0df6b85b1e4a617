"""Labels where AppArmor is on, while the files of /proc that a label could be written to are exchanged for others.

As in CVE-2019-16884: there an image's own /proc, or a volume that a link of the image led to, took the label in the
kernel's place, and the program ran without one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernel.attacks import tools
from vm.conftest import PROJECT, PYTHON, Inside

pytestmark = [pytest.mark.vm, pytest.mark.long]

TURNS, STARTS = 10_000, 20
PROFILE = "profile norace flags=(attach_disconnected,mediate_deleted) { capability, file, network, deny /shared/x w, }"
# An image, and folders that look like a /proc as far as labels go: what is written to them by mistake stays in them.
FILES = """
apparmor_parser -Kr /mnt/norace
rm -rf /tmp/race; mkdir -p /tmp/race/shared /tmp/race/volume; cd /tmp/race
fake() {
    for process in self thread-self 1; do
        mkdir -p $1/$process/attr/apparmor
        for file in exec current apparmor/exec apparmor/current; do : > $1/$process/attr/$file; done
    done
}
mkdir -p image/bin image/proc image/shared image/volume
cp /bin/busybox image/bin/; for name in cat touch sh; do ln -s busybox image/bin/$name; done
for place in image/fake image/proc.folder volume/fake volume/proc.folder; do fake $place; done
ln -s /fake image/proc.link; ln -s fake volume/proc.link; mkdir volume/proc
ln -s ../../proc.folder/self/attr image/attr.link
"""
RACE = """
cd /tmp/race; rm -f end; mkfifo end
/mnt/probe swap $turns 600 $pairs < end > turns 2>&1 &
racer=$!
exec 5> end
for start in $(seq $starts); do
    echo "start $start"
    $tarbox --root /tmp/race/root run --rm --security-opt apparmor=norace $options -v /tmp/race/shared:/shared \\
        /tmp/race/image /bin/sh -c 'echo ran; touch /shared/x && echo unconfined; touch /shared/y && echo wrote' 2>&1
    echo "code $?"
done
exec 5>&-; wait $racer; echo "racer $?"; cat turns
find image/fake image/proc.folder volume -type f -size +0
ls shared
"""
SCENES = {
    "an image's own folder": ("image/proc image/proc.folder", ""),
    "an image's own link": ("image/proc image/proc.link", ""),
    "both, one after the other": ("image/proc image/proc.folder image/proc image/proc.link", ""),
    "a volume that a link leads to": ("volume/proc volume/proc.folder volume/proc volume/proc.link", "volume"),
}


@pytest.fixture(scope="module")
def ready(inside: Inside) -> Iterator[Inside]:
    """The machine with the program that exchanges names, and a profile."""
    folder = Path(inside.machine.folder)
    tools.install(folder / "probe", tools.compiled(Path("probe.c")))
    (folder / "norace").write_text(PROFILE)
    assert inside("sh", "-c", "cat /sys/module/apparmor/parameters/enabled") == (0, "Y\n")
    yield inside
    inside("rm", "-rf", "/tmp/race")


@pytest.mark.parametrize(("scene", "init"), [*((scene, "") for scene in SCENES), ([*SCENES][2], "--init")])
def test_what_runs_has_the_label_and_nothing_else_was_written_to(ready, scene, init):
    """Each start is refused in one clear line, or the profile is in force: what it denies is denied, the rest isn't."""
    pairs, volume = SCENES[scene]
    assert ready("sh", "-ec", FILES) == (0, "")
    if volume:
        assert ready("sh", "-ec", "cd /tmp/race/image; rmdir proc; ln -s /volume/proc proc") == (0, "")
    options = f"{init} -v /tmp/race/volume:/volume" if volume else init
    command = f"{PYTHON} -I -S {PROJECT}/src/tarbox/__main__.py"
    script = f"turns={TURNS} starts={STARTS} pairs='{pairs}' options='{options}' tarbox='{command}'\n{RACE}"
    status, output = ready("sh", "-c", script, timeout=400)
    assert status == 0, output
    starts = re.findall(r"^start \d+\n(.*?)^code (\d+)$", output, re.MULTILINE | re.DOTALL)
    assert len(starts) == STARTS
    ran = 0
    for told, code in starts:
        lines = told.splitlines()
        if "ran" in lines:
            ran += 1
            assert "unconfined" not in lines, output
            assert (lines[0], lines[-1], code) == ("ran", "wrote", "0"), told
        else:
            assert code in ("125", "126", "127"), told
            assert len(lines) == 1, told
            assert lines[0].startswith("tarbox: "), told
    racer, turns, *rest = output[output.index("racer ") :].splitlines()
    assert racer == "racer 0"
    assert int(turns.split()[1]) >= TURNS
    assert rest == (["y"] if ran else []), "nothing was written to a fake"
    assert ran, "no start of all of them got through"
