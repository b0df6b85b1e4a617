"""Shell functions for the scripts that `tarbox explain --script` writes: what is longer than a line and done often.

    . ./functions; place /etc/hosts

They do what `kernel/paths.py`, `spec/users.py` and `kernel/cgroups/groups.py` do, as far as a shell can.

man 1 sh
"""

from __future__ import annotations

COMMON = r"""
# -n: the host's list in /run/mount isn't told of mounts that it doesn't have.
mount() { command mount -n "$@"; }
umount() { command umount -n "$@"; }

# place PATH [TREE]: where PATH of the container is for this shell, links followed as the container follows them, never
# out of $ROOT. What is missing is made: a directory, or a file when TREE is none. (tarbox asks the kernel, openat2(2),
# and keeps a descriptor: in between, nobody can put something else there.)
place() {
    rest=$1 here='' links=0
    while [ -n "$rest" ]; do
        part=${rest%%/*}
        case $rest in */*) rest=${rest#*/} ;; *) rest='' ;; esac
        case $part in
        '' | .) continue ;;
        ..) here=${here%/*}; continue ;;
        esac
        if [ -L "$ROOT$here/$part" ]; then
            links=$((links + 1))
            [ "$links" -le 40 ] || { echo "$1 in the container leads through too many links" >&2; return 1; }
            target=$(readlink -n "$ROOT$here/$part"; echo .)
            target=${target%.}
            case $target in /*) here='' ;; esac
            rest=$target/$rest
            continue
        fi
        here=$here/$part
        [ ! -e "$ROOT$here" ] || continue
        [ "${make-yes}" = yes ] || return 1
        case $rest in
        *[!/]*) mkdir -m 755 "$ROOT$here" ;;
        *) if [ -z "${2-}" ] || [ -d "$2" ]; then mkdir -m 755 "$ROOT$here"; else (umask 022; : > "$ROOT$here"); fi ;;
        esac || return 1
    done
    case $1:$here in
    /proc*) ;;
    *:/proc | *:/proc/*) echo "$1 in the container leads into /proc" >&2; return 1 ;;
    esac
    printf '%s\n' "$ROOT$here"
}

# look PATH: the same for what is there; fails when nothing is.
look() { (make=no; place "$1"); }

# tree TREE SOURCE: a place for a mount that will be moved, a directory or a file like SOURCE.
tree() { if [ -d "$2" ]; then mkdir "$1"; else : > "$1"; fi; }

# remount DIRECTORY OPTIONS: change the attributes of a mount and of those below it.
remount() {
    cut -d ' ' -f 5 /proc/self/mountinfo | while read -r point; do
        point=$(printf '%b.' "$(printf %s "$point" | sed 's/\\/\\0/g')")
        point=${point%.}
        case $point in "$1" | "$1"/*) mount -o "remount,bind,$2" "$point" ;; esac
    done
}

# remove_group GROUP: kill what is in it, and remove it with the groups below.
remove_group() {
    [ -d "$1" ] || return 0
    for below in "$1"/*/; do [ ! -d "$below" ] || (remove_group "${below%/}"); done
    tries=0
    until rmdir "$1" 2>/dev/null || [ ! -d "$1" ] || [ "$tries" = 100 ]; do
        while read -r process; do [ "$process" = 0 ] || kill -KILL "$process"; done < "$1/cgroup.procs" 2>/dev/null
        tries=$((tries + 1))
        sleep 0.05
    done
    [ ! -d "$1" ] || echo "$1 can't be removed" >&2
}
"""

FIND_USER = r"""
# find_user USER GROUP EXTRA...: the user's ids, groups and home from the container's files, into user_id, group_id,
# group_ids and home. Digits are an id. The files are read as text: a program of the image could say anything.
find_user() {
    user_id='' group_id=0 group_ids='' home='' name=''
    passwd=$(look /etc/passwd) || passwd=/dev/null
    group=$(look /etc/group) || group=/dev/null
    while IFS=: read -r found _ uid gid _ at _; do
        case $uid:$gid in :* | *: | *[!0-9:]* | *:*:*) continue ;; esac
        case $1 in *[!0-9]*) [ "$found" = "$1" ] || continue ;; *) [ "$uid" = "$1" ] || continue ;; esac
        user_id=$uid group_id=$gid home=$at name=$found
        break
    done < "$passwd"
    if [ -z "$user_id" ]; then
        case $1 in *[!0-9]*) echo "there is no user $1 in the container" >&2; return 1 ;; esac
        user_id=$1
    fi
    if [ -n "$2" ]; then group_id=$(find_group "$2"); fi
    group_ids=$group_id
    if [ -z "$2" ] && [ -n "$name" ]; then
        while IFS=: read -r _ _ gid members; do
            case $gid in '' | *[!0-9]*) continue ;; esac
            case ,$members, in *,"$name",*) add_group "$gid" ;; esac
        done < "$group"
    fi
    shift 2
    for extra in "$@"; do add_group "$(find_group "$extra")"; done
    home=${home:-/}
}

add_group() { case ,$group_ids, in *,"$1",*) ;; *) group_ids=$group_ids,$1 ;; esac; }

find_group() {
    case $1 in *[!0-9]*) ;; *) echo "$1"; return ;; esac
    while IFS=: read -r found _ gid _; do
        case $gid in '' | *[!0-9]*) continue ;; esac
        if [ "$found" = "$1" ]; then echo "$gid"; return; fi
    done < "$group"
    echo "there is no group $1 in the container" >&2
    return 1
}
"""

LIMIT = r"""
# limit NAME SOFT HARD: set a limit of this process; at most what it may have.
limit() {
    prlimit --pid $$ "--$1=$2:$3" 2>/dev/null && return
    most=$(prlimit --pid $$ "--$1" --output HARD --noheadings --raw)
    echo "the limit $1 can't be raised to $3 here, so it is $most" >&2
    soft=$2
    if [ "$most" != unlimited ] && { [ "$2" = unlimited ] || [ "$2" -gt "$most" ]; }; then soft=$most; fi
    prlimit --pid $$ "--$1=$soft:$most"
}
"""
