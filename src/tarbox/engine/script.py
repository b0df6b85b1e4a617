"""`tarbox explain --script`: how each step is written in a script, where its `shell()` alone wouldn't do.

    tarbox explain --script run IMAGE COMMAND > box.sh; sh box.sh

`plan/script.py` has the frame. Here is what goes into it: longer spellings that look at the machine as the step does
(does this kernel have that file? is the place a directory?), and the shell functions that they share.

man 1 sh
"""

from __future__ import annotations

from ..errors import UnsupportedError
from ..images import host, layers
from ..kernel import (
    apparmor,
    credentials,
    devices,
    keyring,
    masks,
    mount_points,
    mounts,
    namespaces,
    oom_score,
    overlay,
    pivot_root,
    program,
    rlimits,
    runner,
    seccomp,
    security_label,
    sysctl,
    terminal,
    tmpfs,
    user_namespace,
)
from ..kernel.bridge import ALIAS
from ..kernel.cgroups import device_program, groups, v2, weights
from ..kernel.cgroups import devices as device_rules
from ..networks.steps import AddElements, Forward, MakeNetwork
from ..plan.script import About
from ..plan.script import render as rendered
from ..plan.shell import one_by_one, quote, staged
from ..plan.step import PARENT
from ..spec.runtime import UNLIMITED
from ..unistd import os
from .files import MakeFiles, MountFiles
from .shell_functions import COMMON, FIND_USER, LIMIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from ..plan.plan import Plan
    from ..plan.step import Step

_PLACE = '"$PLACE"'
_NEVER_A_VARIABLE = ("OPTIND", "PPID", "LINENO")  # a shell has its own, or wants a number


def script(plan: Plan, command: str, user: int, names: Mapping[str, str]) -> str:
    """The script that makes the container of a plan.

    command: what was asked for, as typed. user: the caller's id. names: "ID", and "NAME" where the host name is made of
    it, and "END" with a network, each by the value that this plan has of it.
    """
    _refuse(plan)
    variables = {"ID": "$(od -An -N32 -tx1 /dev/urandom | tr -d ' \\n')  # another container each time"}
    names = dict(names)
    if "NAME" in names.values():
        variables["NAME"] = '$(printf %.12s "$ID")  # its host name'
    for end in [value for value, name in names.items() if name == "END"]:
        start, _, letters = end.rpartition("-")
        variables["END"] = f'{start}-$(printf %.{len(letters)}s "$ID")  # the host\'s end of its cable'
    spelled = Spelling(plan, user)
    for step in plan.steps:
        if isinstance(step, layers.Unpack):
            variables["IMAGE"] = f"{quote(step.place)}  # the image's files, or where tarbox would unpack them"
            names[step.place] = "IMAGE"
            variables["PLACES"] = f"{quote(step.below())}  # what the image may lack, for others to be mounted on"
            names[step.below()] = "PLACES"
    about = About(command, user, names, variables)
    kinds = {type(step) for step in plan.steps}
    about.functions = COMMON
    about.functions += FIND_USER if credentials.LookUpUser in kinds else ""
    about.functions += LIMIT if rlimits.Limit in kinds else ""
    about.undo = UNDO
    about.lacking = _lacking(plan)
    return rendered(plan, about, spelled)


def _refuse(plan: Plan) -> None:
    """Raise UnsupportedError for a container that this frame of shells can't make."""
    reasons = {
        "OpenNamespace": "namespaces of others: a shell that enters them ends where they do, not with its caller",
        "MakeTimeNamespace": "clocks of its own: unshare makes them for a process that comes after the one it starts",
        "MakeMap": "ids of its own: what shows the image's files with them, mapped mounts and a helper, has no command",
        "Guard": "processes among the host's: a shell that is killed leaves them behind, and nothing watches over it",
    }
    kinds = {type(step).__name__ for step in plan.steps}
    for name, reason in reasons.items():
        if name in kinds:
            raise UnsupportedError(f"no script can be written of {reason}", "'tarbox explain run' tells the steps")


def _lacking(plan: Plan) -> list[str]:
    """What the script doesn't do."""
    lines = [
        "Places are found by path; tarbox holds them by descriptor, so that a link can't be put in their place.",
        "The streams are the caller's own, which the program may reopen; tarbox copies those that lead to files and"
        " terminals. Signals aren't handed on.",
        "If this shell is killed with SIGKILL, what it made on the host stays. tarbox has a journal.",
    ]
    for step in plan.steps:
        if isinstance(step, seccomp.LoadSeccomp):
            lines.append(
                "Seccomp: no filter is loaded. System calls that it would refuse are only held by capabilities."
            )
        elif isinstance(step, AddElements):
            lines.append(
                "No address is leased, and no port of the host reserved: a container of tarbox's may get the same ones."
                " Over ::1, and over IPv6 without an address for it, a published port isn't reached."
            )
        elif isinstance(step, keyring.NewKeyring):
            lines.append("The session keyring is a new one only where keyctl (package keyutils) is there.")
        elif isinstance(step, device_program.AllowDevices):
            lines.append("Devices aren't limited: on cgroup version 2 that takes a BPF program.")
        elif isinstance(step, terminal.OpenConsole):
            lines.append(
                "The terminal is the caller's own. Keys can be pushed into it: don't run what you don't trust."
            )
        elif isinstance(step, mounts.OpenTree) and step.propagation.endswith("shared"):
            lines.append(f"{step.source} isn't shared: what is mounted in it inside isn't seen outside.")
        elif isinstance(step, program.Execute):
            if step.init:
                lines.append("There is no init before the program.")
            if bad := [name for name in _variables(step) if not _may_be_named(name)]:
                lines.append(f"Variables with names that a shell doesn't take are left out: {', '.join(bad)}.")
    return lines


UNDO: dict[str, Callable[[str], str]] = {
    "tree": lambda path: f"chmod -R u+rwX {quote(path)} 2>/dev/null; rm -rf --one-file-system {quote(path)}",
    "cgroup": lambda path: f"remove_group {quote(path)}",
    "elements": lambda name: _delete_elements(*name.split(" ", 1)),
    "network": lambda name: _delete_network(*name.split(" ", 2)[:2]),
    "cgroup-parent": lambda path: f"[ ! -e {_mark(path)} ] || rmdir {quote(path)} 2>/dev/null",
}


class Spelling:
    """How the steps of one plan are written: `Spelling(plan, user)(step)`."""

    def __init__(self, plan: Plan, user: int) -> None:
        self.plan = plan
        self.user = user
        self.interactive = any(isinstance(step, terminal.ChooseStreams) and step.interactive for step in plan.steps)
        self.masked = False

    def __call__(self, step: Step) -> str:
        """The text of a step, see `plan/script.py`."""
        own = _SPELLINGS.get(type(step))
        return own(step, self) if own else step.shell()


def _delete_elements(table: str, words: str) -> str:
    from ..networks.firewall import deleting, read

    elements = read(words)
    ends = dict.fromkeys(one.key[0] for one in elements if one.set.startswith("ends"))
    return "; ".join(
        f"{line} 2>/dev/null" for line in [f"ip link delete {end}" for end in ends] + deleting(table, elements)
    )


def _delete_network(bridge: str, table: str) -> str:
    """The bridge goes with its last port, and the tables with the last bridge."""
    from ..networks.firewall import SETS, deleting, of_bridge
    from ..networks.router import shell_end

    lines = [f"ip link delete {bridge}", *deleting(table, of_bridge(bridge, internal=True))]
    tables = "; ".join(f"nft delete table {family} {table}" for family in SETS)
    lines.append(f"nft list set inet {table} networks | grep -q elements || {{ {shell_end(table)}; {tables}; }}")
    return f'[ -n "$(ip -o link show master {bridge})" ] || {{ {"; ".join(lines)}; }} 2>/dev/null'


def _mark(path: str) -> str:
    """The file that says that this script made a group."""
    return staged(f"made {path}").replace("$TREES", "$WORK")


def _options(attributes: Sequence[str], cleared: Sequence[str] = ()) -> str:
    """Attributes of a mount as mount(8) takes them."""
    opposite = [{"ro": "rw", "strictatime": "relatime"}.get(name, name.removeprefix("no")) for name in cleared]
    return ",".join([*attributes, *opposite])


# --- On the host -----------------------------------------------------------------------------------------------------


def _lines(step: Step, _: Spelling) -> str:
    return one_by_one(step.shell())


def _make_scratch(step: overlay.MakeScratch, _: Spelling) -> str:
    above = os.path.dirname(step.path)
    return f"[ -d {quote(above)} ] || (umask 077; mkdir -p {quote(above)})\n" + one_by_one(step.shell())


def _make_network(step: MakeNetwork, _: Spelling) -> str:
    """With a remark that keeps tarbox from deleting the bridge as one that nobody needs."""
    return one_by_one(step.shell().replace(f"alias {ALIAS}", f"alias {quote(f'{ALIAS} script')}"))


def _add_elements(step: AddElements, _: Spelling) -> str:
    from ..networks.firewall import shell

    return shell(step.table, (*step.network, *step.own))


def _make_parent(step: groups.MakeParent, _: Spelling) -> str:
    return f"if mkdir {quote(step.path)} 2>/dev/null; then : > {_mark(step.path)}; else [ -d {quote(step.path)} ]; fi"


def _write_control(step: groups.WriteControl, _: Spelling) -> str:
    text, path = step.shell(), quote(step.path)
    if step.absent == "":
        return text
    otherwise = f"echo {quote(step.absent)} >&2" if step.absent else ":"
    return f"if [ -e {path} ]; then {text}; else {otherwise}; fi"


def _write_weight(step: weights.WriteWeight, _: Spelling) -> str:
    device, _space, weight = step.value.rpartition(" ")
    ending = "_device" if device else ""
    lines = []
    for file in (f"blkio.weight{ending}", f"blkio.bfq.weight{ending}", "io.bfq.weight"):
        path = quote(f"{step.path}/{file}")
        lines.append(f"[ ! -e {path} ] || echo {quote(step.value)} > {path}")
    even = f"{device or 'default'} {weights.even_weight(int(weight))}"
    path = quote(f"{step.path}/io.weight")
    return "\n".join([*lines, f"[ ! -e {path} ] || echo {quote(even)} > {path}"])


def _enable(step: v2.EnableControllers, _: Spelling) -> str:
    file = quote(f"{step.path}/cgroup.subtree_control")
    lines = [f"echo +{name} > {file}" for name in step.needed]
    lines += [f"(echo +{name} > {file}) 2>/dev/null || :" for name in step.wanted if name not in step.needed]
    return "\n".join(lines)


def _open_group(step: groups.OpenGroup, _: Spelling) -> str:
    return f"# A shell's child can't be born in a group: it moves there first.\nexport GROUP={quote(step.path)}"


def _unpack(step: layers.Unpack, _: Spelling) -> str:
    archive = quote(step.source)
    lines = ['if [ ! -d "$IMAGE" ]; then', "    IMAGE=$WORK/image", '    mkdir -m 755 "$IMAGE"']
    if layers.is_url(step.source):
        lines.append(f'    curl -fsSL -o "$WORK/download" {archive}')
        archive = '"$WORK/download"'
    tar = "tar --numeric-owner --xattrs '--xattrs-include=*'"
    lines += [f'    {tar} -xpf {archive} -C "$IMAGE"', "fi"]
    made = layers.places_command('"$PLACES"')
    return "\n".join([*lines, 'if [ ! -d "$PLACES" ]; then', "    PLACES=$WORK/places", f"    {made}", "fi"])


# --- A process -------------------------------------------------------------------------------------------------------


def _spawn(step: namespaces.Spawn, _: Spelling) -> str:
    kinds = step.shell().removeprefix("unshare ").removesuffix(" sh").replace(" --fork", "")
    made = f"unshare {kinds} --fork --kill-child" if kinds != "sh" else "setsid --wait"
    join = """sh -c 'echo 0 > "$GROUP/cgroup.procs"; exec "$@"' - """ if step.cgroup else ""
    return f"{made} {join}sh"


def _unshare(step: namespaces.Unshare, _: Spelling) -> str:
    text = step.shell()
    return text.replace(" --mount", " --mount --propagation unchanged") if "mount" in step.namespaces else text


def _private(step: Step, _: Spelling) -> str:
    return (
        "# As a slave the copy still hears of the host's mounts, for what is bound with 'rslave', and tells of none.\n"
        "mount --make-rslave /\n" + 'mount -t tmpfs -o mode=700 trees "$TREES"'
    )


def _enter_user_namespace(step: user_namespace.EnterUserNamespace, _: Spelling) -> str:
    return step.shell().replace(" --mount", " --mount --propagation unchanged")


def _oom_score(step: oom_score.OomScore, _: Spelling) -> str:
    return f'({step.shell()}) 2>/dev/null && {step.shell()} || echo "the OOM score can\'t be {step.value} here" >&2'


def _setting(step: sysctl.WriteSetting, _: Spelling) -> str:
    path = quote("/proc/sys/" + step.name.replace(".", "/"))
    write = f"echo {quote(step.value)} > {path}"
    return f"[ ! -e {path} ] || {write}" if step.name in sysctl.USUAL else write


# --- Files -----------------------------------------------------------------------------------------------------------


def _open_tree(step: mounts.OpenTree, _: Spelling) -> str:
    source, tree = quote(step.source), staged(step.slot)
    options = _options(step.attributes, step.cleared)
    lines = [f"tree {tree} {source}", f"mount --{'r' if step.recursive else ''}bind {source} {tree}"]
    if options:
        deep = step.recursively and step.recursive
        lines.append(f"remount {tree} {options}" if deep else f"mount -o remount,bind,{options} {tree}")
    below = "r" if step.propagation.startswith("r") and step.recursive else ""
    return "\n".join([*lines, f"mount --make-{below}{step.propagation.removeprefix('r')} {tree}"])


def _open_overlay(step: overlay.OpenOverlay, _: Spelling) -> str:
    tree = staged(step.slot)
    return f"mkdir {tree}\n{step.shell()}"


def _made(step: mount_points.MakeFilesystem, tree: str) -> str:
    """The lines that mount a new file system. Read only it is made afterwards: the mount, not the file system."""
    others = tuple(name for name in step.attributes if name != "ro")
    escape = step.kind == "overlay"  # its options are paths
    own = tuple(option.replace(",", "\\,") if escape else option for option in step.options)
    options = ",".join((*others, *own))
    chosen = f"-o {quote(options)} " if options else ""
    lines = [f"mount -t {step.kind} {chosen}{quote(step.source)} {tree}"]
    if len(others) < len(step.attributes):
        lines.append(f"mount -o {quote(','.join(('remount', 'bind', *step.attributes)))} {tree}")
    return "\n".join(lines)


def _make_filesystem(step: mount_points.MakeFilesystem, _: Spelling) -> str:
    return f"mkdir {staged(step.slot)}\n{_made(step, staged(step.slot))}"


def _mount_filesystem(step: mount_points.MountFilesystem, _: Spelling) -> str:
    return _made(step, _PLACE)


def _find_place(step: mount_points.FindPlace, spelling: Spelling) -> str:
    # What the runner mounts, a directory always, is no tree by now.
    here = any(step.tree in other.gives() and other.by == PARENT for other in spelling.plan.steps)
    return f"PLACE=$(place {quote(step.target)}{' ' + staged(step.tree) if here else ''})"


def _attach_tree(step: mount_points.AttachTree, _: Spelling) -> str:
    return f"mount --move {staged(step.slot)} {_PLACE}"


def _attach_root(step: Step, _: Spelling) -> str:
    return f'mount --move {staged("tree")} "$ROOT"'


def _read_only_mount(step: mount_points.ReadOnlyMount, _: Spelling) -> str:
    return f'mount -o remount,bind,ro "$(place {quote(step.path)})"'


def _mount_files(step: MountFiles, _: Spelling) -> str:
    lines = []
    for name in step.names:
        file = f'"$TREES/files/{name}"'
        lines.append(f'mount --bind {file} "$(place /etc/{name} {file})"')
    return "\n".join(lines)


def _make_devices(step: devices.MakeDevices, _: Spelling) -> str:
    lines, above = [], ""
    for path, kind, major, minor, mode, uid, gid in step.nodes:
        folder, _slash, name = path.rpartition("/")
        if folder != above:
            lines.append(f'cd "$(place {quote(folder or "/")})"')
            above = folder
        node = f"./{name}"
        numbers = "" if kind == "p" else f" {major} {minor}"
        owner = f" && chown {uid}:{gid} {quote(node)}" if uid or gid else ""
        lines.append(f"[ -e {quote(node)} ] || {{ mknod -m {mode:o} {quote(node)} {kind}{numbers}{owner}; }}")
    return "\n".join([*lines, "cd /"])


def _link_devices(step: Step, _: Spelling) -> str:
    lines = [
        f"[ -L .{link[4:]} ] || [ -e .{link[4:]} ] || ln -s {target} .{link[4:]}" for target, link in devices.LINKS
    ]
    return "\n".join(['cd "$(place /dev)"', *lines, "cd /"])


def _open_covers(step: Step, _: Spelling) -> str:
    return "\n".join(
        (
            '[ "$(stat -c %t:%T /dev/null)" = 1:3 ] || { echo "/dev/null isn\'t the null device" >&2; exit 125; }',
            ': > "$TREES/null"',
            'mount --bind -o ro /dev/null "$TREES/null"',
            'mkdir "$TREES/empty"',
            'mount -t tmpfs -o size=0k tmpfs "$TREES/empty"',
            'mount -o remount,bind,ro "$TREES/empty"',
        )
    )


def _mask(step: masks.MaskPaths, _: Spelling) -> str:
    paths = " ".join(map(quote, step.paths))
    return "\n".join(
        (
            f"for path in {paths}; do",
            '    PLACE=$(look "$path") || continue',
            '    if [ -d "$PLACE" ]; then cover=empty; else cover=null; fi',
            '    mount --bind "$TREES/$cover" "$PLACE"',
            "done",
        )
    )


def _read_only_paths(step: masks.ReadOnlyPaths, _: Spelling) -> str:
    paths = " ".join(map(quote, step.paths))
    return "\n".join(
        (
            f"for path in {paths}; do",
            '    PLACE=$(look "$path") || continue',
            '    mount --rbind "$PLACE" "$PLACE"',
            '    remount "$PLACE" ro',
            "done",
        )
    )


# --- Root and rights -------------------------------------------------------------------------------------------------


def _pivot(step: Step, _: Spelling) -> str:
    return (
        "nsenter --mount=/proc/self/fd/6 --wd=/proc/self/fd/7 pivot_root . .\n"
        "# The old root now lies over the new one, at the same place. The tool is the host's, by this shell's root.\n"
        "nsenter --mount=/proc/self/fd/6 --root=/ --wd=/proc/self/fd/7 umount -n -l ."
    )


def _find_directory(step: pivot_root.FindDirectory, _: Spelling) -> str:
    return f"DIRECTORY=$(place {quote(step.path)})"


def _enter(step: Step, _: Spelling) -> str:
    return 'cd "$DIRECTORY"  # it stays this one when the root changes'


def _read_only_root(step: Step, _: Spelling) -> str:
    return 'mount -o remount,bind,ro "$ROOT"'


def _look_up(step: credentials.LookUpUser, _: Spelling) -> str:
    who, _colon, group = step.spec.partition(":")
    words = [quote(word) for word in (who or "0", group, *step.extra_groups)]
    text = f"find_user {' '.join(words)}"
    if step.root_only:
        text += '\n[ "$user_id:$group_id" = 0:0 ] || { echo "a plain user\'s container has one id, 0" >&2; exit 125; }'
    return text


def _choose_streams(step: terminal.ChooseStreams, _: Spelling) -> str:
    if step.terminal:
        return "# They are the caller's: a shell has no terminal of its own to give."
    lines = [] if step.interactive else ['exec < "$(look /dev/null)"']
    lines += [
        "read -r process _ < /proc/self/stat",
        "for stream in 1 2; do",
        "    file=/proc/$process/fd/$stream",
        '    if [ "$(readlink "$file")" = /dev/null ]; then eval "exec $stream> \\"\\$(look /dev/null)\\""; fi',
        '    [ ! -p "$file" ] || chown "${user_id-0}" "$file" 2>/dev/null || :',
        "done",
    ]
    return "\n".join(lines)


def _use_streams(step: terminal.UseStreams, _: Spelling) -> str:
    return "# They stay the caller's, and so does the session." if step.terminal else "setsid COMMAND"


def _keyring(step: Step, _: Spelling) -> str:
    quiet = "exec 6>&2 2>/dev/null; exec keyctl session - sh -c '\\''exec 2>&6 6>&-; exec \"$@\"'\\'' - \"$@\""
    return f"if command -v keyctl >/dev/null; then set -- \"$@\" sh -c '{quiet}' -; fi"


def _limit(step: rlimits.Limit, _: Spelling) -> str:
    soft, hard = ("unlimited" if value == UNLIMITED else str(value) for value in (step.soft, step.hard))
    return f"limit {step.name} {soft} {hard}"


def _seccomp(step: seccomp.LoadSeccomp, _: Spelling) -> str:
    return f"# Not done: the tools that load a filter want it compiled (the profile is {step.profile})."


def _load_profile(_: apparmor.LoadProfile, __: Spelling) -> str:
    return f"apparmor_parser -Kr <<'END_OF_PROFILE'\n{apparmor.text().strip()}\nEND_OF_PROFILE"


def _label(step: security_label.SetLabel, _: Spelling) -> str:
    if step.module != security_label.APPARMOR:
        return step.shell()
    # aa-exec(1) looks for itself by its number, which is another one in this /proc: the host's.
    find = "file=/proc/self/attr/apparmor/exec; [ -e $file ] || file=/proc/self/attr/exec"
    asked = f'set -e; {find}; echo "exec $0" > $file; exec "$@"'
    return f"sh -c {quote(asked)} {quote(step.label)} COMMAND"


def _credentials(step: credentials.Credentials, _: Spelling) -> str:
    user = '"$user_id"' if step.user is None else str(step.user)
    group = '"$group_id"' if step.group is None else str(step.group)
    if not step.setgroups:
        return f"setpriv --reuid {user} --regid {group} --keep-groups COMMAND"
    if step.groups is None:
        return f'setpriv --reuid {user} --regid {group} --groups "$group_ids" COMMAND'
    return step.shell()


def _close_descriptors(step: runner.CloseDescriptors, _: Spelling) -> str:
    """But for three that the last shell closes itself: 7, 8 and 9."""
    return step.shell().replace('[ "$fd" -lt 3 ] ||', "case $fd in [0-2789]) continue ;; esac;")


def _execute(step: program.Execute, _: Spelling) -> str:
    lines = ["unset PWD OLDPWD"]
    for variable in step.environment:
        name, _equals, value = variable.partition("=")
        if _may_be_named(name):
            lines.append(f"export {name}={quote(value)}")
    path = step.path
    words = [quote(word) for word in (path, *step.arguments[1:])]
    return "\n".join([*lines, " ".join(["exec", *(["--"] if path.startswith("-") else []), *words])])


def _variables(step: program.Execute) -> list[str]:
    return [variable.partition("=")[0] for variable in step.environment]


def _may_be_named(name: str) -> bool:
    """Whether a shell takes a name for a variable's."""
    return name.isascii() and name.isidentifier() and name not in _NEVER_A_VARIABLE


def _saying(text: str) -> Callable[[Any, Spelling], str]:
    return lambda step, spelling: f"# {text}"


_SPELLINGS: dict[type, Callable[[Any, Spelling], str]] = {
    overlay.MakeScratch: _make_scratch,
    MakeNetwork: _make_network,
    Forward: _lines,
    AddElements: _add_elements,
    groups.MakeParent: _make_parent,
    groups.WriteControl: _write_control,
    groups.OpenGroup: _open_group,
    weights.WriteWeight: _write_weight,
    v2.EnableControllers: _enable,
    layers.Unpack: _unpack,
    namespaces.Spawn: _spawn,
    namespaces.Unshare: _unshare,
    namespaces.DieWithParent: _saying("Done by 'unshare --kill-child' and 'setpriv --pdeathsig' outside."),
    mounts.PrivateMounts: _private,
    user_namespace.EnterUserNamespace: _enter_user_namespace,
    oom_score.OomScore: _oom_score,
    sysctl.WriteSetting: _setting,
    mounts.OpenTree: _open_tree,
    host.MakeSkeleton: _lines,
    overlay.OpenOverlay: _open_overlay,
    mount_points.MakeFilesystem: _make_filesystem,
    mount_points.MountFilesystem: _mount_filesystem,
    mount_points.FindPlace: _find_place,
    mount_points.AttachTree: _attach_tree,
    mount_points.ReadOnlyMount: _read_only_mount,
    pivot_root.AttachRoot: _attach_root,
    pivot_root.PivotRoot: _pivot,
    pivot_root.FindDirectory: _find_directory,
    pivot_root.Enter: _enter,
    pivot_root.ReadOnlyRoot: _read_only_root,
    MakeFiles: _lines,
    MountFiles: _mount_files,
    devices.MakeDevices: _make_devices,
    devices.LinkDevices: _link_devices,
    masks.OpenCovers: _open_covers,
    masks.MaskPaths: _mask,
    masks.ReadOnlyPaths: _read_only_paths,
    tmpfs.MountMemory: _lines,
    device_rules.LimitDevices: _lines,
    credentials.LookUpUser: _look_up,
    apparmor.LoadProfile: _load_profile,
    security_label.SetLabel: _label,
    credentials.Credentials: _credentials,
    terminal.ChooseStreams: _choose_streams,
    terminal.UseStreams: _use_streams,
    keyring.NewKeyring: _keyring,
    rlimits.Limit: _limit,
    seccomp.LoadSeccomp: _seccomp,
    runner.CloseDescriptors: _close_descriptors,
    program.Execute: _execute,
}
