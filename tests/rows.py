"""The runner's rows carried out by Python, in a child that is thrown away."""

from __future__ import annotations

import os
import pickle
import traceback

from tarbox.errors import KernelError
from tarbox.kernel.syscall import addressof, buffer, syscall
from tarbox.plan.step import ANY, Filter, Register


def perform(rows, registers=None) -> dict[int, int]:
    """Make the system calls of these rows in this process; returns what is in the registers at the end.

    registers: what is in them before. Raises KernelError for an errno that the row doesn't name. "init" does nothing.
    """
    registers = dict(registers or {})
    at = 0
    while at < len(rows):
        row = rows[at]
        at += 1
        if row.name == "init":
            continue
        held = []
        try:
            result = syscall(row.name, *(_value(argument, registers, held) for argument in row.arguments))
        except KernelError as error:
            named = [skip for errno, skip in row.on if errno in (error.errno, ANY)]
            if not named:
                raise
            at += named[0]
        else:
            if row.store:
                registers[row.store] = result
            at += row.skip
    return registers


def _value(argument, registers, held):
    if isinstance(argument, Register):
        return registers[argument.number]
    return _program(argument, held) if isinstance(argument, Filter) else argument


def _program(program: bytes, held: list) -> int:
    instructions = buffer(len(program))
    instructions[:] = program
    head = buffer(16)
    head[:] = (len(program) // 8).to_bytes(8, "little") + addressof(instructions).to_bytes(8, "little")
    held += [instructions, head]
    return addressof(head)


def failure(name: str, *arguments) -> int:
    """The errno of a system call, or 0."""
    try:
        syscall(name, *arguments)
    except KernelError as error:
        return error.errno
    return 0


def in_child(function):
    """What `function` returns in a forked child, or raises there; a signal that kills it is ("killed", number)."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(ours)
            try:
                answer = (True, function())
            except BaseException:
                answer = (False, traceback.format_exc())
            os.write(theirs, pickle.dumps(answer))
        finally:
            os._exit(0)
    os.close(theirs)
    with open(ours, "rb") as pipe:
        data = pipe.read()
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return ("killed", os.WTERMSIG(status))
    succeeded, value = pickle.loads(data)
    assert succeeded, value
    return value
