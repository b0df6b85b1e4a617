"""Labels of security modules in a plan: who asks for them, when, and which file systems are labelled as a whole.

    aa-exec -p PROFILE COMMAND; runcon LABEL COMMAND; mount -o context=LABEL …

https://github.com/opencontainers/runtime-spec/blob/main/config.md#linux-process, config-linux.md#mount-label
"""

from __future__ import annotations

from ..kernel.mount_points import MountFilesystem
from ..kernel.overlay import OpenOverlay
from ..kernel.security_label import APPARMOR, SELINUX, LabelMount, OpenAttribute, OpenProc, SetLabel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from ..plan.step import Step
    from ..spec.runtime import Process

_UNCONFINED = "unconfined"
_LABELLED = ("tmpfs", "devpts")  # the kernel labels what is in /proc, /sys and cgroups itself
_ALREADY_MADE = "mqueue"  # with its namespace, so that it takes no label as a whole any more, but its top does


def steps(process: Process, init: bool) -> list[Step]:
    """The steps that label a config's process, the one that asks for the label last.

    init: it is the child of an init of ours. Where the config has both modules' labels, AppArmor's is taken: a kernel
    runs one of the two.
    """
    profile, context = process.get("apparmorProfile", ""), process.get("selinuxLabel", "")
    if profile and profile != _UNCONFINED:
        module, label = APPARMOR, profile
    elif context:
        module, label = SELINUX, context
    else:
        return []
    return [OpenProc(), OpenAttribute(module, "current" if init else "exec"), SetLabel(module, label, init)]


def label_mounts(made: list[Step], more: Iterable[Step], label: str) -> None:
    """Have all files of the file systems that these steps make labelled as SELinux's context `label` says.

    made: a list, to which a step may be added. more: others, or some of the same.
    """
    for at, step in [*enumerate(made)][::-1]:
        if isinstance(step, MountFilesystem) and step.kind == _ALREADY_MADE:
            made.insert(at + 1, LabelMount(step.slot, step.target, label))
    labelled: Any
    for labelled in {id(step): step for step in (*made, *more)}.values():
        if isinstance(labelled, OpenOverlay) or getattr(labelled, "kind", "") in _LABELLED:
            labelled.options = (*labelled.options, f"context={label}")
