"""The runner's bytes: the code is what the assembly says, the table what the rows say."""

from __future__ import annotations

import shutil
import struct
import subprocess

import pytest

import testhost
from tarbox.errors import UnsupportedError
from tarbox.kernel import runner, runner_image, syscall
from tarbox.kernel.program import Execute
from tarbox.kernel.runner import CloseDescriptors, DeathSignal, execution, image, read_report
from tarbox.plan.step import ANY, ARGUMENTS, ENVIRONMENT, Filter, Register, Row, Slots

ADDRESS = 0x400000


@pytest.mark.parametrize(("processor", "prefix"), [("x86_64", "x86_64-linux-gnu-"), ("aarch64", "aarch64-linux-gnu-")])
@pytest.mark.parametrize("name", ["runner", "spawn"])
def test_the_code_is_what_the_assembler_makes_of_the_source(name, processor, prefix, tmp_path):
    if not shutil.which(prefix + "as"):
        pytest.skip(f"{prefix}as isn't installed (Debian: binutils-{processor.replace('_', '-')}-linux-gnu)")
    source = testhost.CHECKOUT / "src" / "tarbox" / "kernel" / f"{name}-{processor}.S"
    made, text = tmp_path / "made.o", tmp_path / "made.bin"
    subprocess.run([prefix + "as", "-o", made, source], check=True)
    relocations = subprocess.run([prefix + "objdump", "-r", made], check=True, capture_output=True, text=True).stdout
    assert "R_" not in relocations, "the code is copied, not linked"
    subprocess.run([prefix + "objcopy", "-O", "binary", "-j", ".text", made, text], check=True)
    kept = {"runner": runner_image.CODE, "spawn": runner_image.SPAWN}[name]
    assert kept[processor].hex() == text.read_bytes().hex()


class Image:
    """An image taken apart with other means than it was made with."""

    def __init__(self, data: bytes, processor: str) -> None:
        self.data = data
        self.table = 120 + len(runner_image.CODE[processor])
        (self.errors,) = struct.unpack_from("<q", data, self.table)
        self.rows = []
        self.after = []  # of each row: registers, store, skip, 0, (errno, skip) twice
        for at in range(self.table + 8, len(data), 64):
            row = struct.unpack_from("<7q", data, at)
            if row[0] == -1:
                break
            self.rows.append(row)
            self.after.append(tuple(data[at + 56 : at + 64]))

    def at(self, address: int, size: int) -> bytes:
        return self.data[address - ADDRESS :][:size]


@pytest.fixture(params=["x86_64", "aarch64"])
def processor(request, monkeypatch):
    monkeypatch.setattr(runner_image, "MACHINE", request.param)
    monkeypatch.setattr(syscall, "NUMBERS", {**syscall._NUMBERS[request.param], **syscall._COMMON})
    return request.param


def test_the_image_is_a_static_program_of_one_segment(processor):
    data = image([Row("chdir", (b"/",))], 5)
    assert data[:7] == b"\x7fELF\x02\x01\x01"
    kind, target, _, entry, headers = struct.unpack_from("<HHIQQ", data, 16)
    assert (kind, target) == (2, {"x86_64": 62, "aarch64": 183}[processor])
    assert (entry, headers) == (ADDRESS + 120, 64)
    load, flags, offset, address, _, in_file, in_memory, _ = struct.unpack_from("<IIQQQQQQ", data, 64)
    assert (load, offset, address) == (1, 0, ADDRESS)
    assert flags == 5, "readable and executable, never writable"
    assert in_file == in_memory == len(data)


def test_rows_come_in_order_after_the_check_of_the_descriptor(processor):
    rows = [
        Row("prctl", (38, 1, 0, 0, 0)),
        Row("init", ()),
        Row("setresuid", (-1, 7, 0xFFFFFFFF), optional=True),
        Row("umask", (True,)),
    ]
    parts = Image(image(rows, 9), processor)
    numbers = syscall.NUMBERS
    assert parts.errors == 9
    assert parts.rows == [
        (numbers["fcntl"], 9, 1, 0, 0, 0, 0),
        (numbers["prctl"], 38, 1, 0, 0, 0, 0),
        (-2, 0, 0, 0, 0, 0, 0),
        (numbers["setresuid"], -1, 7, 0xFFFFFFFF, 0, 0, 0),
        (numbers["umask"], 1, 0, 0, 0, 0, 0),
    ]
    assert parts.after == [(0,) * 8] * 3 + [(0, 0, 0, 0, 255, 0, 0, 0), (0,) * 8]


def test_registers_results_and_rows_to_pass_over_are_in_the_last_word(processor):
    rows = [
        Row("openat", (-100, b"/", 0, 0), store=63, skip=1, on=((2, 3), (ANY, 2))),
        Row("fchdir", (Register(63),), on=((13, 2),)),
        Row("mmap", (Register(0), 5, Register(2), 7, 8, Register(1)), store=2),
        Row("execve", (b"/bin/sh", ARGUMENTS, ENVIRONMENT)),
    ]
    parts = Image(image(rows, 9), processor)
    assert parts.after[1:] == [
        (0, 63, 1, 0, 2, 3, 255, 2),
        (0b1, 0, 0, 0, 13, 2, 0, 0),
        (0b100101, 2, 0, 0, 0, 0, 0, 0),
        (0b110, 0, 0, 0, 0, 0, 0, 0),
    ]
    assert parts.rows[2][1] == 63
    assert parts.rows[3][1:] == (0, 5, 2, 7, 8, 1)
    assert parts.rows[4][2:4] == (0, 1)


@pytest.mark.parametrize(
    "row",
    [
        Row("fchdir", (Register(64),)),
        Row("fchdir", (Register(-1),)),
        Row("fchdir", (3,), store=1),
        Row("fchdir", (3,), store=64),
        Row("fchdir", (3,), skip=2),
        Row("fchdir", (3,), skip=-1),
        Row("fchdir", (3,), on=((2, 2),)),
        Row("fchdir", (3,), on=((2, -1),)),
        Row("fchdir", (3,), on=((0, 0),)),
        Row("fchdir", (3,), on=((256, 0),)),
        Row("fchdir", (3,), on=((2, 0), (3, 0), (4, 0))),
        Row("mmap", (0,) * 7),
        Row("chdir", ("text",)),
        Row("chdir", (None,)),
        Row("chdir", (bytearray(b"/"),)),
    ],
    ids=lambda row: f"{row.arguments} {row.store} {row.skip} {row.on}",
)
def test_rows_that_can_t_be_meant_are_refused(row):
    with pytest.raises((ValueError, TypeError)):
        image([row, Row("chdir", (b"/",))], 3)


def test_a_row_may_pass_over_all_others_and_not_more_than_a_byte_holds():
    other = Row("chdir", (b"/",))
    image([Row("fchdir", (3,), skip=255), *[other] * 255], 3)
    with pytest.raises(ValueError):
        image([Row("fchdir", (3,), skip=255), *[other] * 254], 3)
    with pytest.raises(ValueError):
        image([Row("fchdir", (3,), skip=256), *[other] * 300], 3)


def test_the_same_bytes_are_there_once():
    once = image([Row("chdir", (b"/a/long/path",))] * 2, 3)
    twice = image([Row("chdir", (b"/a/long/path",)), Row("chdir", (b"/b/long/path",))], 3)
    assert len(twice) == len(once) + 16
    program = Filter(bytes(8))
    parts = Image(image([Row("chdir", (bytes(8),)), Row("seccomp", (1, 0, program))], 3), syscall.MACHINE)
    assert parts.rows[1][1] != parts.rows[2][3], "a filter isn't its bytes"


def test_the_rows_that_execute_try_one_program_after_the_other():
    rows = execution([b"/bin/x", b"/usr/bin/x"])
    assert [row.arguments for row in rows] == [
        (b"/bin/x", ARGUMENTS, ENVIRONMENT),
        (b"/bin/x", ARGUMENTS, ENVIRONMENT),
        (b"/usr/bin/x", ARGUMENTS, ENVIRONMENT),
    ]
    assert [row.on for row in rows] == [((2, 1), (ANY, 0)), ((13, 0), (20, 0)), ()]
    assert repr(rows[0]) == 'execve("/bin/x", argv, envp)'


@pytest.mark.parametrize("size", range(10))
def test_bytes_are_passed_by_address_aligned_and_ended_by_a_zero(size):
    first, second = b"a" * size, b"second"
    parts = Image(image([Row("mount", (first, second, 0, -1, first))], 3), syscall.MACHINE)
    addresses = [parts.rows[1][place] for place in (1, 2, 5)]
    assert parts.rows[1][3:5] == (0, -1)
    for address, expected in zip(addresses, (first, second, first), strict=True):
        assert address % 8 == 0
        assert parts.at(address, len(expected) + 1) == expected + b"\0"


@pytest.mark.parametrize("instructions", [1, 2, 600])
def test_a_filter_is_passed_as_its_sock_fprog(instructions):
    program = Filter(bytes(index % 251 for index in range(8 * instructions)))
    parts = Image(image([Row("chdir", (b"/x",)), Row("seccomp", (1, 0, program))], 3), syscall.MACHINE)
    pointer = parts.rows[2][3]
    length, address = struct.unpack("<HxxxxxxQ", parts.at(pointer, 16))
    assert length == instructions
    assert parts.at(address, 8 * instructions) == program
    assert parts.at(parts.rows[1][1], 3) == b"/x\0"


def test_another_processor_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(runner_image, "MACHINE", "riscv64")
    with pytest.raises(UnsupportedError, match="riscv64"):
        image([], 3)


def test_an_unknown_call_is_refused_by_name():
    with pytest.raises(UnsupportedError, match="no_such_call"):
        image([Row("no_such_call", ())], 3)


def test_a_report_counts_from_the_callers_first_row():
    assert read_report(struct.pack("<qq", 1, 13)) == (0, 13)
    assert read_report(struct.pack("<qq", 8, 2)) == (7, 2)


@pytest.mark.parametrize("data", [b"", b"x" * 15, b"x" * 17])
def test_what_is_no_report_is_none(data):
    assert read_report(data) is None


def test_the_steps_rows_are_their_calls():
    slots = Slots()
    (row,) = CloseDescriptors().rows(slots)
    assert (row.name, row.arguments) == ("close_range", (3, 0xFFFFFFFF, 4))
    (row,) = DeathSignal().rows(slots)
    assert (row.name, row.arguments[:2]) == ("prctl", (1, 9))
    assert DeathSignal(15).call() == "prctl(PR_SET_PDEATHSIG, 15)"


def test_execute_gives_what_enter_takes_and_hides_values():
    step = Execute("/bin/sh", ("sh", "-c", "echo \udcff"), ("SECRET=abc", "B=2"))
    assert step.program() == ([b"sh", b"-c", b"echo \xff"], [b"SECRET=abc", b"B=2"])
    assert "abc" not in step.call()
    assert "2 variables" in step.call()
    assert [row.name for row in step.rows(Slots())] == ["execve"]
    assert Execute("sh", ("sh",), init=True, search="/a:/b").rows(Slots())[0].name == "init"
    assert step.shell().startswith("exec /bin/sh -c ")
    assert Execute("/bin/true", ("true",), init=True).shell() == "tini -- /bin/true"


def test_the_shell_spelling_of_closing_leaves_three(tmp_path):
    script = "exec 5</dev/null 17</dev/null; " + CloseDescriptors().shell().replace("COMMAND", "ls /proc/self/fd")
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert not {"5", "17"} & set(done.stdout.split())
    assert {"0", "1", "2"} <= set(done.stdout.split())


def test_strings_with_a_zero_byte_are_refused():
    with pytest.raises(runner.KernelError, match="zero byte"):
        runner._vectors([b"a"], [b"b\0c"])
