"""Processes that leave Python through the runner."""

from __future__ import annotations

import os
import time

from tarbox.kernel import syscall
from tarbox.kernel.runner import CloseDescriptors, enter, execution, read_report
from tarbox.plan.step import Row, Slots

CLONE_NEWNS, CLONE_NEWPID = 0x20000, 0x20000000
CLOSE = CloseDescriptors().rows(Slots())
SH = "/bin/sh"


def ending(program, init=False):
    """The rows that execute a program, or several of which the first is taken that is there; `init` stays behind."""
    candidates = [program] if isinstance(program, str | bytes | os.PathLike) else program
    return [*([Row("init", ())] if init else []), *execution([os.fsencode(path) for path in candidates])]


class Started:
    """A process that calls enter(); `report` is complete once its program runs."""

    def __init__(self, folder, rows, *words, path=None, env=(), init=False, before=None, pids=False, stdin=None):
        rows = [*rows, *ending(path or words[0], init)]
        arguments = [os.fsencode(word) for word in words]
        self.output_file = folder / "output"
        reader, writer = os.pipe()
        output = os.open(self.output_file, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        self.pid = os.fork()
        if not self.pid:
            try:
                null = os.open("/dev/null", os.O_RDONLY)
                os.dup2(null if stdin is None else stdin, 0)
                os.dup2(output, 1)
                os.dup2(output, 2)
                if pids:
                    self._new_pids(writer)
                if before:
                    before()
                enter(rows, arguments, [os.fsencode(variable) for variable in env], writer)
            except BaseException as error:
                os.write(2, f"{type(error).__name__}: {error}".encode())
            finally:
                os._exit(99)
        os.close(writer)
        os.close(output)
        with open(reader, "rb") as stream:
            self.report = stream.read()

    def _new_pids(self, writer):
        """Goes on as process 1 of a new pid namespace with a proc of its own; its parent ends as it ends."""
        syscall.syscall("unshare", CLONE_NEWPID | CLONE_NEWNS)
        if first := os.fork():
            os.close(writer)
            os._exit(os.waitstatus_to_exitcode(os.waitpid(first, 0)[1]) & 0xFF)
        syscall.syscall("mount", b"proc", b"/proc", b"proc", 0, None)

    def wait(self):
        """(exit code, (row, errno) or None, output)."""
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return code, read_report(self.report), os.fsdecode(self.output_file.read_bytes())

    def wait_for(self, text, seconds=20.0):
        end = time.monotonic() + seconds
        while text not in self.output_file.read_text():
            assert time.monotonic() < end, self.output_file.read_text()
            time.sleep(0.01)
