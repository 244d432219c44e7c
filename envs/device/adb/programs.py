"""The programs of the phone's shell for files and text: `ls`, `cat`, `rm`, `echo`, `grep`, ..., as toybox's."""

from __future__ import annotations

import hashlib
import posixpath
import re
import stat
from datetime import UTC, datetime

from .commands import Command, Handset
from .phone_files import resolve
from .shell import CommandError, Io


def _split(args: list[str]) -> tuple[str, list[str]]:
    """The letters of the options, and the rest."""
    options = [arg for arg in args if arg.startswith("-") and len(arg) > 1]
    return "".join(arg.lstrip("-") for arg in options), [arg for arg in args if arg not in options]


def _inputs(handset: Handset, name: str, paths: list[str], io: Io) -> bytes:
    """The content of the files, or stdin where none is named."""
    if not paths:
        return io.stdin
    try:
        return b"".join(io.stdin if path == "-" else handset.files.read(path) for path in paths)
    except OSError as error:
        raise CommandError(f"{name}: {error}") from error


def cat(handset: Handset, args: list[str], io: Io) -> int:
    """`cat [FILE ...]`; without a file, or for `-`, its input."""
    code = 0
    for path in args or ["-"]:
        try:
            io.out(io.stdin if path == "-" else handset.files.read(path))
        except OSError as error:
            io.err(f"cat: {error}\n")
            code = 1
    return code


def ls(handset: Handset, args: list[str], io: Io) -> int:
    """`ls [-l] [-a] [PATH ...]`"""
    options, paths = _split(args)
    code = 0
    for path in paths or ["/"]:
        try:
            found = handset.files.stat(path)
            folder = found.is_folder and "d" not in options
            names = handset.files.listing(path) if folder else [path]
        except FileNotFoundError:
            io.err(f"ls: {path}: No such file or directory\n")
            code = 1
            continue
        if folder and "l" in options:
            io.out("total 0\n")
        for name in names:
            full = f"{path.rstrip('/')}/{name}" if folder else path
            io.out(f"{_long(handset, full)} {name}\n" if "l" in options else f"{name}\n")
    return code


def _long(handset: Handset, path: str) -> str:
    found = handset.files.stat(path)
    when = datetime.fromtimestamp(found.mtime, UTC).strftime("%Y-%m-%d %H:%M")
    return f"{stat.filemode(found.mode)} 1 root sdcard_rw {found.size:>7} {when}"


def rm(handset: Handset, args: list[str], io: Io) -> int:
    """`rm [-r] [-f] PATH ...`"""
    options, paths = _split(args)
    code = 0
    for path in paths:
        try:
            if handset.files.is_folder(path) and not set("rR") & set(options):
                raise IsADirectoryError(f"{path}: is directory")
            handset.files.remove(path)
        except OSError as error:
            if not (isinstance(error, FileNotFoundError) and "f" in options):
                io.err(f"rm: {error}\n")
                code = 1
    return code


def mkdir(handset: Handset, args: list[str], io: Io) -> int:
    """`mkdir [-p] FOLDER ...`"""
    options, paths = _split(args)
    for path in paths:
        handset.files.make_folder(path, parents="p" in options)
    return 0


def mv(handset: Handset, args: list[str], io: Io) -> int:
    """`mv FROM TO`"""
    _, paths = _split(args)
    if len(paths) != 2:
        raise CommandError("mv: Needs 2 arguments")
    handset.files.move(paths[0], paths[1])
    return 0


def cp(handset: Handset, args: list[str], io: Io) -> int:
    """`cp FROM TO`"""
    _, paths = _split(args)
    if len(paths) != 2:
        raise CommandError("cp: Needs 2 arguments")
    source, target = paths
    if handset.files.is_folder(target):
        target = posixpath.join(target, posixpath.basename(source))
    handset.files.write(target, handset.files.read(source))
    return 0


def touch(handset: Handset, args: list[str], io: Io) -> int:
    """`touch FILE ...`"""
    for path in _split(args)[1]:
        handset.files.write(path, handset.files.read(path) if handset.files.exists(path) else b"")
    return 0


def tee(handset: Handset, args: list[str], io: Io) -> int:
    """`tee [FILE ...]`"""
    for path in _split(args)[1]:
        handset.files.write(path, io.stdin)
    io.out(io.stdin)
    return 0


def echo(handset: Handset, args: list[str], io: Io) -> int:
    """`echo [-n] [WORD ...]`"""
    end = "\n"
    if args[:1] == ["-n"]:
        end, args = "", args[1:]
    io.out(" ".join(args) + end)
    return 0


def md5sum(handset: Handset, args: list[str], io: Io) -> int:
    """`md5sum FILE ...`"""
    for path in _split(args)[1]:
        digest = hashlib.md5(_inputs(handset, "md5sum", [path], io), usedforsecurity=False).hexdigest()
        io.out(f"{digest}  {path}\n")
    return 0


def toybox(handset: Handset, args: list[str], io: Io) -> int:
    """`toybox PROGRAM ARGUMENTS`"""
    if not args:
        io.out(" ".join(sorted(FILE_PROGRAMS)) + "\n")
        return 0
    if args[0] not in FILE_PROGRAMS or args[0] == "toybox":
        raise CommandError(f"toybox: Unknown command {args[0]}", 127)
    return FILE_PROGRAMS[args[0]](handset, args[1:], io)


def grep(handset: Handset, args: list[str], io: Io) -> int:
    """`grep [-i] [-v] [-E] [-F] [-c] [-q] PATTERN [FILE]...`"""
    options, rest = _split(args)
    if not rest:
        raise CommandError("grep: no REGEX", 2)
    pattern = re.escape(rest[0]) if "F" in options else rest[0]
    if "E" not in options:
        pattern = pattern.replace("\\|", "|")
    try:
        wanted = re.compile(pattern, re.IGNORECASE if "i" in options else 0)
    except re.error as error:
        raise CommandError(f"grep: bad regex '{rest[0]}': {error}", 2) from error
    text = _inputs(handset, "grep", rest[1:], io).decode(errors="replace")
    lines = [line for line in text.splitlines() if bool(wanted.search(line)) != ("v" in options)]
    if "c" in options:
        io.out(f"{len(lines)}\n")
    elif "q" not in options:
        io.out("".join(f"{line}\n" for line in lines))
    return 0 if lines else 1


def _cut(args: list[str]) -> tuple[int, list[str]]:
    """The number of lines and the files of `head` and `tail`."""
    lines, paths, at = 10, [], 0
    while at < len(args):
        if args[at] == "-n" and at + 1 < len(args):
            at += 1
            lines = int(args[at]) if args[at].isdecimal() else 10
        elif re.fullmatch(r"-n?\d+", args[at]):
            lines = int(args[at].lstrip("-n"))
        else:
            paths.append(args[at])
        at += 1
    return lines, paths


def head(handset: Handset, args: list[str], io: Io) -> int:
    """`head [-n LINES] [FILE ...]`"""
    lines, paths = _cut(args)
    io.out(b"".join(_inputs(handset, "head", paths, io).splitlines(keepends=True)[:lines]))
    return 0


def tail(handset: Handset, args: list[str], io: Io) -> int:
    """`tail [-n LINES] [FILE ...]`"""
    lines, paths = _cut(args)
    io.out(b"".join(_inputs(handset, "tail", paths, io).splitlines(keepends=True)[-lines:] if lines else []))
    return 0


def wc(handset: Handset, args: list[str], io: Io) -> int:
    """`wc [-l] [-w] [-c] [FILE ...]`"""
    options, paths = _split(args)
    data = _inputs(handset, "wc", paths, io)
    counts = {"l": data.count(b"\n"), "w": len(data.split()), "c": len(data)}
    io.out(" ".join(str(counts[key]) for key in counts if key in options or not options) + "\n")
    return 0


def test(handset: Handset, args: list[str], io: Io) -> int:
    """`test -e|-f|-d PATH`, `test -n|-z TEXT`, `test A = B`, `test A != B`; also as `[ ... ]`."""
    match [arg for arg in args if arg != "]"]:
        case ["-e", path]:
            return 0 if handset.files.exists(path) else 1
        case ["-f", path]:
            return 0 if handset.files.exists(path) and not handset.files.is_folder(path) else 1
        case ["-d", path]:
            return 0 if handset.files.is_folder(path) else 1
        case ["-z", text]:
            return 1 if text else 0
        case ["-n", text]:
            return 0 if text else 1
        case [one, "=" | "==", other]:
            return int(one != other)
        case [one, "!=", other]:
            return int(one == other)
        case _:
            raise CommandError("test: cannot read this condition", 2)


def realpath(handset: Handset, args: list[str], io: Io) -> int:
    """`realpath PATH ...`"""
    io.out("".join(f"{resolve(path)}\n" for path in args))
    return 0


def true(handset: Handset, args: list[str], io: Io) -> int:
    """`true`"""
    return 0


def false(handset: Handset, args: list[str], io: Io) -> int:
    """`false`"""
    return 1


FILE_PROGRAMS: dict[str, Command] = {
    "[": test,
    "cat": cat,
    "chmod": true,
    "cp": cp,
    "echo": echo,
    "false": false,
    "grep": grep,
    "head": head,
    "ls": ls,
    "md5sum": md5sum,
    "mkdir": mkdir,
    "mv": mv,
    "realpath": realpath,
    "rm": rm,
    "sync": true,
    "tail": tail,
    "tee": tee,
    "test": test,
    "touch": touch,
    "toybox": toybox,
    "true": true,
    "wc": wc,
}
