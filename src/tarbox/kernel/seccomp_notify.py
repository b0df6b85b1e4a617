"""seccomp notification: the kernel asks another process about system calls before they are made.

    strace COMMAND          tells of them too, by ptrace; there is no shell command for this one

A filter may return SECCOMP_RET_USER_NOTIF instead of a verdict. The caller then waits until whoever holds the filter's
listener has answered: go on (SECCOMP_USER_NOTIF_FLAG_CONTINUE), or fail with an errno. With the last copy of the
listener closed, every such call fails with ENOSYS, so nobody waits for a listener that has died.

Here an ordinary filter is turned into one that asks wherever the ordinary one would allow or fail; the answer is what
that one would have said, from the same registers. What it kills it goes on to kill.

From the moment the filter is loaded, the runner's own calls wait for an answer as well, and the listener is still in
the runner. So three calls are let through unasked, those that hand the listener over and close it here: they
carry a number in the upper half of an argument of which the kernel reads the lower half.

man 2 seccomp_unotify, man 2 seccomp
"""

from __future__ import annotations

from errno import EINTR, EINVAL, ENOENT
from fcntl import ioctl
from select import POLLHUP, poll

from ..plan.step import RUNNER, Filter, Passing, Register, Row
from .seccomp import LoadSeccomp
from .syscall import MACHINE, number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..plan.step import Slots

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOW, LOG, ERRNO, USER_NOTIF = 0x7FFF0000, 0x7FFC0000, 0x00050000, 0x7FC00000
LISTENER = b"l"  # what the runner says when it sends the listener

_ACTION = 0xFFFF0000
_SET_MODE_FILTER, _NEW_LISTENER, _WAIT_KILLABLE_RECV = 1, 1 << 3, 1 << 5
_LD, _JEQ, _RET = 0x20, 0x15, 0x06
_NUMBER, _ARCH, _UPPER_HALF = 0, 4, 16 + 8 * 2 + 4  # offsets in struct seccomp_data; of the third argument
_EVERY = 0xFFFFFFFF
_REGISTER = Register(2)
_O_CLOEXEC = 0o2000000
_MSG_NOSIGNAL = 0x4000
_RECEIVE, _SEND, _SET_FLAGS = 0xC0502100, 0xC0182101, 0x40082104
_SYNC_WAKE_UP = (1).to_bytes(8, "little")
_EMPTY = bytes(80)  # struct seccomp_notif: id 8, pid 4, flags 4, then struct seccomp_data: number, architecture, …

GO_ON = bytes(12) + (1).to_bytes(4, "little")  # struct seccomp_notif_resp after its id: value 8, error 4, flags 4


def fail(errno: int) -> bytes:
    """The answer that makes a call fail with this errno."""
    return bytes(8) + (-errno).to_bytes(4, "little", signed=True) + bytes(4)


def asking(program: bytes, secret: int) -> bytes:
    """The program that asks where `program` allows or fails; b"" stands for one that allows everything.

    secret: 32 bits, other than 0; see `LoadNotifier`.
    """
    ours = [number(name) for name in ("sendmsg", "dup3", "close_range")]
    made = [
        (_LD, 0, 0, _ARCH),
        (_JEQ, 0, 7, AUDIT_ARCH[MACHINE]),
        (_LD, 0, 0, _UPPER_HALF),
        (_JEQ, 0, 5, secret),
        (_LD, 0, 0, _NUMBER),
        *((_JEQ, 2 - at, int(at == 2), call) for at, call in enumerate(ours)),
        (_RET, 0, 0, ALLOW),
    ]
    words = [code.to_bytes(2, "little") + bytes((yes, no)) + k.to_bytes(4, "little") for code, yes, no, k in made]
    ask = _RET.to_bytes(8, "little")[:4] + USER_NOTIF.to_bytes(4, "little")
    for at in range(0, len(program), 8):
        instruction = program[at : at + 8]
        asks = instruction[0] == _RET and int.from_bytes(instruction[4:], "little") & _ACTION in (ALLOW, LOG, ERRNO)
        words.append(ask if asks else instruction)
    return b"".join(words if program else [*words, ask])


class LoadNotifier(LoadSeccomp):
    """Put a seccomp program before every later system call that asks the parent, and send the parent its listener.

    profile, program, flags: as for `LoadSeccomp`, of the filter whose verdicts the parent gives. secret: 32 bits,
    other than 0, that no program can guess. What the runner has open besides the report is closed.
    """

    __slots__ = ("secret",)

    why = "The command is asked about every system call, so that it learns which ones the container needs."
    man = "seccomp_unotify(2)"

    def __init__(self, profile: str, program: bytes, flags: int, secret: int, by: str = RUNNER) -> None:
        super().__init__(profile, program, flags, by)
        self.secret = secret

    def rows(self, slots: Slots) -> list[Row]:
        """After the program nothing waits but what comes after these rows.

        Were the listener still open here when the parent dies, the runner would wait for itself, for ever.
        """
        errors = int(str(slots.found["errors"]))
        listener = 3 if errors != 3 else 4
        unasked = self.secret << 32
        others = [some for some in ((3, errors - 1), (errors + 1, _EVERY)) if some[0] <= some[1]]
        asking_program = Filter(asking(self.program, self.secret))
        flags = self.flags | _NEW_LISTENER
        return [
            *(Row("close_range", (*some, 0)) for some in others),
            # Since 5.19: a caller that is being answered isn't interrupted by signals that it handles.
            Row(
                "seccomp",
                (_SET_MODE_FILTER, flags | _WAIT_KILLABLE_RECV, asking_program),
                self.call(),
                store=2,
                skip=1,
                on=((EINVAL, 0),),
            ),
            Row("seccomp", (_SET_MODE_FILTER, flags, asking_program), self.call(), store=2),
            # EINVAL: it has that number already.
            Row("dup3", (_REGISTER, listener, _O_CLOEXEC | unasked), on=((EINVAL, 0),)),
            Row("sendmsg", (errors, Passing(LISTENER, listener), _MSG_NOSIGNAL | unasked), "sendmsg(parent)"),
            *(Row("close_range", (*some, unasked)) for some in others),
        ]

    def call(self) -> str:
        return f"seccomp(SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER|…, {{as {self.profile}, but asks}})"

    def shell(self) -> str:
        return ""


def serve(
    listener: int, known: dict[bytes, bytes], decide: Callable[[bytes], bytes], missed: Callable[[], None]
) -> None:
    """Answer all calls until no process is left that has the filter; raises OSError.

    known: the answers to calls that are always the same, by number and architecture as they stand in a notification
    (its bytes 16 to 24). decide: gives the answer to any other, from the whole notification.
    missed: is told of a call whose caller met a signal before the call got here. It is made again, or fails with EINTR
    where the program's handler of that signal wants it so (no SA_RESTART); or the caller has died.
    """
    try:
        ioctl(listener, _SET_FLAGS, int.from_bytes(_SYNC_WAKE_UP, "little"))  # since 6.6: half the time of an answer
    except OSError:
        pass
    while True:
        try:
            call = ioctl(listener, _RECEIVE, _EMPTY)
        except OSError as error:
            if error.errno == ENOENT:  # what was announced is there no more
                if _nobody_left(listener):
                    return
                missed()
            elif error.errno != EINTR:
                raise
            continue
        answer = known.get(call[16:24]) or decide(call)
        try:
            ioctl(listener, _SEND, call[:8] + answer)
        except OSError as error:
            if error.errno not in (ENOENT, EINTR):
                raise


def _nobody_left(listener: int) -> bool:
    poller = poll()
    poller.register(listener, 0)
    return any(events & POLLHUP for _, events in poller.poll(0))
