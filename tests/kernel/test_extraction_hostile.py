"""Archives that try to do harm: nothing is made outside, nothing is left, and the message names the entry."""

from __future__ import annotations

import gzip
import os
import random
import resource
import stat
from pathlib import Path

import pytest

from tarballs import BLOCK, END, facts, file, header, long_name, padded, pax
from tarbox.errors import ArchiveError, StorageError, TarboxError
from tarbox.images.layers import Layers
from tarbox.plan.step import Slots


class Case:
    """A folder with a data root, an archive, and a canary beside them that no archive may touch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.layers = Layers(str(folder / "data"))
        self.warnings: list[str] = []
        (folder / "canary").mkdir()
        (folder / "canary/file").write_text("safe")
        self.before = facts(folder / "canary")

    def unpack(self, content: bytes) -> Path:
        archive = self.folder / "archive.tar"
        archive.write_bytes(content)
        slots = Slots()
        try:
            self.layers.unpack(str(archive)).apply(slots)
        finally:
            assert facts(self.folder / "canary") == self.before
            self.warnings = slots.warnings
        layer = self.layers.find(str(archive))
        assert layer is not None
        return Path(layer.tree)

    def refuse(self, content: bytes, *words: str, error: type[TarboxError] = ArchiveError) -> str:
        with pytest.raises(error) as caught:
            self.unpack(content)
        text = str(caught.value)
        assert "\n" not in text
        assert all(word in text for word in words), text
        for name in ("layers", "sources", "scratch"):
            assert os.listdir(self.folder / "data" / name) == []
        return text


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def directory(name: str, **fields: object) -> bytes:
    return header(name, b"5", mode=0o755, **fields)  # type: ignore[arg-type]


def symlink(name: str, target: str) -> bytes:
    return header(name, b"2", link=target)


# --- Ways out --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../canary/file", "a/../../canary/file", "/../etc/x", "a/b/../../../x", ".."])
def test_a_name_that_leads_out_is_refused_by_name(case, name):
    case.refuse(file("fine", b"x") + file(name, b"evil") + END, name)


def test_an_absolute_name_lands_inside(case):
    tree = case.unpack(file(str(case.folder / "canary/file"), b"evil") + END)
    inside = tree / str(case.folder / "canary/file").lstrip("/")
    assert inside.read_bytes() == b"evil"


@pytest.mark.parametrize(
    "make_target", [lambda case: str(case.folder / "canary"), lambda case: "../../../../../canary"]
)
def test_a_file_through_a_symlink_that_points_out_lands_inside_or_is_refused(case, make_target):
    target = make_target(case)
    try:
        tree = case.unpack(symlink("way", target) + file("way/file", b"evil") + END)
    except ArchiveError:
        return
    assert os.readlink(tree / "way") == target
    assert [path for path in tree.rglob("file") if path.read_bytes() == b"evil"]


def test_a_file_over_a_symlink_replaces_the_symlink(case):
    tree = case.unpack(symlink("name", str(case.folder / "canary/file")) + file("name", b"new") + END)
    assert not (tree / "name").is_symlink()
    assert (tree / "name").read_bytes() == b"new"


def test_a_directory_entry_replaced_by_a_symlink_is_written_through_inside(case):
    """Also when the directory was the last one in use."""
    outside = str(case.folder / "canary")
    content = directory("d") + symlink("d", outside) + directory(outside.lstrip("/")) + file("d/file", b"evil") + END
    tree = case.unpack(content)
    assert (tree / outside.lstrip("/") / "file").read_bytes() == b"evil"


def test_a_chain_of_symlinks_is_followed_inside(case):
    chain = symlink("a", "b") + symlink("b", "/c") + symlink("c", "../../real") + directory("real")
    tree = case.unpack(chain + file("a/file", b"x") + END)
    assert (tree / "real/file").read_bytes() == b"x"


def test_a_loop_of_symlinks_is_refused(case):
    case.refuse(symlink("a", "b") + symlink("b", "a") + file("a/file", b"x") + END, "a/file", "symbolic links")


@pytest.mark.parametrize("magic", ["/proc/self/root", "/proc/self/cwd", "/proc/1/root"])
def test_links_of_proc_lead_nowhere_special(case, magic):
    tree = case.unpack(symlink("way", magic) + directory(magic.lstrip("/")) + file("way/file", b"x") + END)
    assert (tree / magic.lstrip("/") / "file").read_bytes() == b"x"


def test_a_hard_link_to_the_outside_is_refused(case):
    case.refuse(header("link", b"1", link="../canary/file") + END, "link")
    case.refuse(header("link", b"1", link=str(case.folder / "canary/file")) + END, "link", "isn't in the archive")
    content = symlink("way", str(case.folder / "canary")) + header("link", b"1", link="way/file") + END
    case.refuse(content, "link", "isn't in the archive")


def test_a_hard_link_to_a_symlink_links_the_symlink_and_writes_replace_it(case):
    outside = str(case.folder / "canary/file")
    content = symlink("a", outside) + header("b", b"1", link="a") + file("b", b"evil") + END
    tree = case.unpack(content)
    assert os.readlink(tree / "a") == outside
    assert (tree / "b").read_bytes() == b"evil"


def test_hard_links_to_nothing_to_directories_and_to_the_root_are_refused(case):
    case.refuse(header("link", b"1", link="missing") + END, "link", "missing")
    case.refuse(directory("d") + header("link", b"1", link="d") + END, "link", "directory")
    case.refuse(header("link", b"1", link=".") + END, "link", "root")


def test_a_hard_link_to_itself_changes_nothing(case):
    tree = case.unpack(file("a", b"x") + header("a", b"1", link="./a") + END)
    assert (tree / "a").read_bytes() == b"x"


def test_the_root_of_the_image_is_a_directory(case):
    case.refuse(symlink("./", str(case.folder / "canary")) + file("file", b"x") + END, "root")
    case.refuse(header(".", b"2", link="/") + END, "root")


def test_a_device_is_replaced_and_never_written_to(case):
    device = header("null", b"3", device=(1, 3), mode=0o666)
    tree = case.unpack(device + file("null", b"data") + header("fifo", b"6") + file("fifo", b"data") + END)
    assert stat.S_ISREG(os.lstat(tree / "null").st_mode)
    assert (tree / "fifo").read_bytes() == b"data"


def test_nothing_is_made_below_a_file_or_a_device(case):
    for above in (file("a", b"x"), header("a", b"3", device=(1, 3)), header("a", b"6")):
        case.refuse(above + file("a/b", b"x") + END, "a/b")


def test_a_directory_with_contents_is_kept(case):
    case.refuse(file("d/file", b"x") + file("d", b"x") + END, "the entry d")
    tree = case.unpack(file("d/file", b"x") + directory("d") + directory("e") + symlink("e", "d") + END)
    assert (tree / "e/file").read_bytes() == b"x"


# --- Names -----------------------------------------------------------------------------------------------------------


def test_names_that_no_file_can_have_are_refused(case):
    case.refuse(pax([("path", b"a\0b")]) + file("x") + END, "zero byte")
    case.refuse(long_name(b"n" * 256) + file("x") + END, "255")
    case.refuse(long_name(b"n/" * 2100) + file("x") + END, "too long")
    case.refuse(pax([("linkpath", b"a\0b")]) + header("x", b"2") + END, "zero byte")
    case.refuse(header("x", b"2", link=b"") + END, "target")


def test_a_message_stays_one_harmless_line(case):
    text = case.refuse(file(b"../\n\x1b[31mred" + b"x" * 50, b"") + END)
    assert "\x1b" not in text


# --- Attributes ------------------------------------------------------------------------------------------------------


def test_attributes_that_speak_to_overlay_or_to_a_security_module_are_left_out_with_a_warning(case):
    bad = ["trusted.overlay.opaque", "trusted.overlay.redirect", "user.overlay.opaque", "trusted.x", "security.SMACK64",
           "system.posix_acl_default", "nonsense"]  # fmt: skip
    records = [(f"SCHILY.xattr.{name}", "y") for name in [*bad, "user.kept"]]
    tree = case.unpack(pax(records) + directory("d") + pax(records) + file("f", b"x") + END)
    assert os.listxattr(tree / "d") == ["user.kept"]
    assert os.listxattr(tree / "f") == ["user.kept"]
    assert any("trusted.overlay" in line for line in case.warnings)
    assert any("security" in line for line in case.warnings)


def test_a_file_s_capabilities_and_set_user_id_bit_survive_the_change_of_owner(case):
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    content = pax([("SCHILY.xattr.security.capability", capability)]) + file("ping", b"x", uid=5, gid=6, mode=0o4755)
    status = os.stat(case.unpack(content + END) / "ping")
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (5, 6, 0o4755)
    assert os.getxattr(case.folder / "data/layers" / os.listdir(case.folder / "data/layers")[0] / "fs/ping",
                       "security.capability") == capability  # fmt: skip


def test_the_store_is_closed_to_others(case):
    tree = case.unpack(file("su", b"x", mode=0o4755) + END)
    assert stat.S_IMODE(os.stat(tree.parent.parent).st_mode) == 0o700


# --- Numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        header("x", fields={124: b"\xff" * 12}),
        header("x", fields={124: b"\x80" + b"\xff" * 11}),
        header("x", fields={124: b"-0000000001\0"}),
        header("x", fields={124: b"9999999999 \0"}),
        header("x", fields={108: b"\xff" * 8}),
        header("x", fields={136: b"\x80" + b"\x7f" * 11}),
        header("x", b"3", device=(0o7777777, 0)),
        pax([("size", "-1")]) + header("x"),
        pax([("size", "1_0")]) + header("x"),
        pax([("size", "9" * 5000)]) + header("x"),
        pax([("uid", "4294967295")]) + header("x"),
        pax([("mtime", "1e9")]) + header("x"),
        pax([("mtime", "9" * 18)]) + header("x"),
        header("pax", b"x", (1 << 20) + 1),
        header("pax", b"x", 1 << 40),
        header("name", b"L", 1 << 40),
        header("pax", b"x", 20) + padded(b"999999999 path=a\nxx\n"),
        header("pax", b"x", 9) + padded(b"-8 a=bcd\n"),
        header("pax", b"x", 8) + padded(b"8 a=bcdX"),
        header("pax", b"x", 7) + padded(b"7 abcd\n"),
        header("pax", b"x", 5) + padded(b"4 =b\n"),
    ],
)
def test_numbers_out_of_bounds_are_refused(case, content):
    case.refuse(content + END)


def sparse(size: int, records: list[tuple[str, str]], stored: bytes) -> bytes:
    return pax([("GNU.sparse.major", "0"), ("GNU.sparse.size", str(size)), *records]) + file("hole", stored)


@pytest.mark.parametrize(
    "content",
    [
        sparse(100, [("GNU.sparse.map", "50,10,0,10")], bytes(20)),
        sparse(100, [("GNU.sparse.map", "0,10,5,10")], bytes(20)),
        sparse(100, [("GNU.sparse.map", "95,10")], bytes(10)),
        sparse(100, [("GNU.sparse.map", "0,10")], bytes(20)),
        sparse(100, [("GNU.sparse.map", "0,10,20")], bytes(10)),
        sparse(100, [("GNU.sparse.map", "0,-10")], bytes(10)),
        sparse(100, [("GNU.sparse.numbytes", "10")], bytes(10)),
        sparse(1 << 63, [("GNU.sparse.map", "0,10")], bytes(10)),
        sparse((1 << 63) - 1, [("GNU.sparse.map", "0,10")], bytes(10)),
        pax([("GNU.sparse.major", "1"), ("GNU.sparse.realsize", "9")]) + file("hole", padded(b"9999999999\n0\n1\n")),
        pax([("GNU.sparse.major", "1"), ("GNU.sparse.realsize", "9")]) + file("hole", b"1" * 600),
        pax([("GNU.sparse.major", "1"), ("GNU.sparse.realsize", "9")]) + file("hole", padded(b"3\n0\n1\n")),
        header("hole", b"S", 10, fields={386: b"%011o\0%011o\0" % (5, 10), 483: b"%011o\0" % 9}) + padded(bytes(10)),
        header("hole", b"S", 10, fields={482: b"\1", 483: b"%011o\0" % 9}),
    ],
)
def test_maps_of_holes_that_lie_are_refused(case, content):
    case.refuse(content + END)


def test_an_archive_larger_than_the_disk_is_refused_before_it_fills_it(case):
    room = os.statvfs(case.folder)
    size = room.f_blocks * room.f_frsize * 4
    case.refuse(header("big", fields={124: b"\x80" + size.to_bytes(11, "big")}) + bytes(BLOCK), "room")


def test_a_cut_leaves_nothing_wherever_it_is(case):
    whole = (
        directory("d") + file("d/f", b"x" * 3000) + symlink("l", "d") + pax([("mtime", "1.5")]) + file("g", b"y" * 99)
    )
    assert case.unpack(whole + END)
    for path in ("layers", "sources"):
        for name in os.listdir(case.folder / "data" / path):
            os.rename(case.folder / "data" / path / name, case.folder / f"{path}-kept")
    for length in [*range(BLOCK, len(whole) + 1, 256), len(whole) - 1]:
        case.refuse(whole[:length], "cut short")
    packed = gzip.compress(whole + END)
    for length in (30, len(packed) // 2, len(packed) - 8, len(packed) - 1):
        case.refuse(packed[:length], "cut short")
    case.refuse(packed[:-5] + bytes([packed[-5] ^ 1]) + packed[-4:], "damaged")


def test_an_image_archive_is_told_from_a_root_filesystem(case):
    layer = "a" * 64
    case.refuse(
        directory(layer) + file(f"{layer}/layer.tar", b"x") + file("manifest.json", b"[]") + END, "image archive"
    )
    case.refuse(directory("blobs") + file("oci-layout", b"{}") + END, "image archive")
    assert case.unpack(file("etc/passwd", b"x") + file("manifest.json", b"[]") + END)


def test_a_bomb_is_unpacked_in_bounded_memory(case):
    """Half a gigabyte of zeros in a few hundred kilobytes, in a process that may not grow by a quarter of it."""
    import zlib

    squeeze = zlib.compressobj(9, wbits=31)
    size = 512 << 20
    parts = [squeeze.compress(header("zeros", size=size))]
    parts += [squeeze.compress(bytes(1 << 20)) for _ in range(512)]
    packed = b"".join([*parts, squeeze.compress(END), squeeze.flush()])
    child = os.fork()
    if child == 0:
        status = 1
        try:
            used = int(Path("/proc/self/statm").read_text().split()[0]) * 4096
            resource.setrlimit(resource.RLIMIT_AS, (used + (160 << 20),) * 2)
            case.unpack(packed)
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


# --- Noise -----------------------------------------------------------------------------------------------------------


def sample() -> bytes:
    """A small archive with one of everything."""
    holes = pax([("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "9000"),
                 ("GNU.sparse.name", "holes")])  # fmt: skip
    return b"".join([
        pax([("comment", "for all")], b"g"), directory("./"), directory("usr/lib"), symlink("lib", "usr/lib"),
        file("lib/a", b"a" * 700, uid=3), header("b", b"1", link="usr/lib/a"), symlink("out", "../../.."),
        file("out/c", b"c"), pax([("path", "long/" * 40 + "x"), ("mtime", "12.5"), ("SCHILY.xattr.user.a", b"\0\1")]),
        file("x", b"data"), holes, file("y", padded(b"1\n4096\n100\n") + b"h" * 100),
        long_name(b"n" * 150), file("n", b"n"), header("dev", b"3", device=(1, 3)), header("fifo", b"6"),
        header("old", b"S", 10, fields={386: b"%011o\0%011o\0" % (512, 10), 483: b"%011o\0" % 522}),
        padded(bytes(10)), END,
    ])  # fmt: skip


def mutate(content: bytes, source: random.Random) -> bytes:
    """The archive with a few bytes of its headers changed, most often with their checksums set right again."""
    noisy = bytearray(content)
    blocks = len(content) // BLOCK
    for _ in range(source.randint(1, 4)):
        start = BLOCK * source.randrange(blocks)
        what = source.random()
        if what < 0.2:
            other = BLOCK * source.randrange(blocks)
            noisy[start : start + BLOCK] = noisy[other : other + BLOCK]
        elif what < 0.3:
            noisy[start + 156] = source.choice(b"0123456790xgLKSVMDNX\0")
        elif what < 0.5:
            word = source.choice(
                [b"../", b"/", b"..", b"out/../..", b"lib", b"\xff", b"7" * 11, b"\x80\xff", b"-1", b"\0"]
            )
            place = start + source.choice(
                [0, 0, 0, 100, 108, 116, 124, 124, 136, 157, 157, 257, 329, 345, 386, 482, 483]
            )
            noisy[place : place + len(word)] = word
        else:
            noisy[start + source.randrange(BLOCK)] = source.randrange(256)
        if source.random() < 0.8:
            block = noisy[start : start + BLOCK]
            block[148:156] = b" " * 8
            noisy[start + 148 : start + 156] = b"%06o\0 " % sum(block)
    if source.random() < 0.1:
        del noisy[source.randrange(len(noisy)) :]
    return bytes(noisy)


def assault(folder: Path, seeds: range) -> None:
    """Unpack mutated samples; whatever they are, only refusals, nothing outside, nothing left of what was refused."""
    from tarbox.images.store import unpack_file
    from tarbox.kernel.trees import remove_tree

    canary = folder / "canary"
    canary.mkdir()
    (canary / "file").write_text("safe")
    before = facts(canary)
    content = sample()
    accepted = 0
    told = []
    for seed in seeds:
        archive = folder / "archive.tar"
        archive.write_bytes(mutate(content, random.Random(seed)))
        tree = folder / "tree"
        tree.mkdir(0o700)
        handle = os.open(archive, os.O_RDONLY)
        try:
            unpack_file(handle, "sample", str(tree))
            accepted += 1
        except (ArchiveError, StorageError) as error:
            told.append(str(error))
        finally:
            os.close(handle)
        remove_tree(str(tree))
        assert sorted(os.listdir(folder)) == ["archive.tar", "canary"], seed
    assert facts(canary) == before
    assert not [line for line in told if "\n" in line or "\x1b" in line]
    assert 0 < accepted < len(seeds)


def test_noise_in_the_headers_never_leads_out(tmp_path):
    assault(tmp_path, range(400))


@pytest.mark.long
def test_much_noise_in_the_headers_never_leads_out(tmp_path):
    assault(tmp_path, range(1000, 21000))
