"""The phone's shell over ADB: as much of `sh` as clients of ADB use.

Words with quotes, backslashes, `$?` and `$NAME`; `;`, newline, `&&`, `||`, `|`; `>`, `>>`, `<`, `2>`, `2>&1`;
assignments before a command. No loops, functions, globs or substitution: such a line ends with an error, as an
unknown command does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

STDOUT, STDERR = 1, 2
MAX_LINE = 1 << 16
_OPERATOR = re.compile(r"2>&1|&&|\|\||2>>|2>|1>|>>|[><|;\n&]")
_PLAIN = re.compile(r"[^ \t\r\n'\"\\<>|;&]+")
_VARIABLE = re.compile(r"\$(?:(\?)|\{(\w+)\}|([A-Za-z_]\w*))")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")

Part = tuple[str, bool]
"""A piece of a word, and whether `$` in it stands for a variable."""


class ShellSyntaxError(ValueError):
    """The line cannot be read; the message is what the shell prints."""


class CommandError(ValueError):
    """What a command prints to stderr before it ends with exit code `code`."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


@dataclass(slots=True)
class Io:
    """What a command reads and writes. `chunks` keeps the order in which both streams were written."""

    stdin: bytes = b""
    chunks: list[tuple[int, bytes]] = field(default_factory=list)

    def out(self, text: str | bytes) -> None:
        """Write to stdout."""
        self.chunks.append((STDOUT, text if isinstance(text, bytes) else text.encode(errors="replace")))

    def err(self, text: str) -> None:
        """Write to stderr."""
        self.chunks.append((STDERR, text.encode(errors="replace")))

    def joined(self, *streams: int) -> bytes:
        """All that was written to these streams, in order."""
        return b"".join(data for stream, data in self.chunks if stream in streams)


Program = Callable[[list[str], Io], int]
"""A command: its arguments without its name, what it reads and writes; gives the exit code. May raise CommandError."""


@dataclass(slots=True)
class _Simple:
    """One command: its words, and its redirections as pairs of operator and target."""

    words: list[list[Part]] = field(default_factory=list)
    redirections: list[tuple[str, list[Part]]] = field(default_factory=list)


def _lex(line: str) -> Iterator[str | list[Part]]:
    """Operators as text, words as lists of parts."""
    word: list[Part] = []
    at, in_word = 0, False
    while at < len(line):
        letter = line[at]
        found = _OPERATOR.match(line, at)
        operator = found.group() if found else ""
        # A digit belongs to a redirection only at the start of a word: `echo a2>f` writes `a2`.
        if operator and not (in_word and operator[0].isdigit()):
            if in_word:
                yield word
                word, in_word = [], False
            yield operator
            at += len(operator)
        elif letter in " \t\r":
            if in_word:
                yield word
                word, in_word = [], False
            at += 1
        else:
            part, at = _piece(line, at)
            word.append(part)
            in_word = True
    if in_word:
        yield word


def _piece(line: str, at: int) -> tuple[Part, int]:
    letter = line[at]
    if letter == "'":
        end = line.find("'", at + 1)
        if end < 0:
            raise ShellSyntaxError("sh: syntax error: no closing quote")
        return (line[at + 1 : end], False), end + 1
    if letter == '"':
        return _double_quoted(line, at + 1)
    if letter == "\\":
        return (line[at + 1 : at + 2], False), at + 2
    plain = _PLAIN.match(line, at)
    assert plain is not None, "blanks and operators were taken before"
    return (plain.group(), True), plain.end()


def _double_quoted(line: str, at: int) -> tuple[Part, int]:
    text = ""
    while at < len(line) and line[at] != '"':
        if line[at] == "\\" and line[at + 1 : at + 2] in ('"', "\\", "$", "`"):
            # A dollar that was escaped must not be expanded later: a zero byte marks it.
            text += "\0" if line[at + 1] == "$" else line[at + 1]
            at += 2
        else:
            text += line[at]
            at += 1
    if at >= len(line):
        raise ShellSyntaxError("sh: syntax error: no closing quote")
    return (text, True), at + 1


def _parse(line: str) -> list[tuple[str, list[_Simple]]]:
    """Pipelines, each with the operator before it (`;`, `&&` or `||`)."""
    found: list[tuple[str, list[_Simple]]] = [(";", [_Simple()])]
    redirect = ""
    for token in _lex(line):
        current = found[-1][1][-1]
        if not isinstance(token, str):
            if redirect:
                current.redirections.append((redirect, token))
                redirect = ""
            else:
                current.words.append(token)
        elif redirect:
            raise ShellSyntaxError(f"sh: syntax error: unexpected '{token.strip() or 'newline'}'")
        elif token == "2>&1":
            current.redirections.append((token, []))
        elif token == "|":
            found[-1][1].append(_Simple())
        elif token in ("&&", "||", ";", "\n", "&"):
            found.append((token if token in ("&&", "||") else ";", [_Simple()]))
        else:
            redirect = token
    if redirect:
        raise ShellSyntaxError("sh: syntax error: unexpected 'newline'")
    return [(before, pipeline) for before, pipeline in found if any(c.words or c.redirections for c in pipeline)]


class Shell:
    """A shell with its variables and its last exit code. One per stream.

    Args:
        programs: commands by name.
        read_file: raises FileNotFoundError; `write_file` raises OSError.
    """

    def __init__(
        self,
        programs: Mapping[str, Program],
        read_file: Callable[[str], bytes],
        write_file: Callable[[str, bytes], None],
    ) -> None:
        self._programs = programs
        self._read, self._write = read_file, write_file
        self.variables: dict[str, str] = {"PATH": "/system/bin", "HOME": "/", "ANDROID_DATA": "/data"}
        self.code = 0
        self.over = False

    def run(self, line: str, stdin: bytes = b"") -> tuple[list[tuple[int, bytes]], int]:
        """Carry out a line: what it wrote, in order (1 stdout, 2 stderr), and its exit code. Never raises."""
        io = Io(stdin)
        if len(line) > MAX_LINE:
            io.err("sh: the line is too long\n")
            return io.chunks, 2
        try:
            for before, pipeline in _parse(line):
                if self.over or (before == "&&" and self.code) or (before == "||" and not self.code):
                    continue
                self.code = self._pipeline(pipeline, io)
        except ShellSyntaxError as error:
            io.err(f"{error}\n")
            self.code = 1
        return io.chunks, self.code

    def _pipeline(self, pipeline: list[_Simple], io: Io) -> int:
        stdin, code = io.stdin, 0
        for number, command in enumerate(pipeline):
            own = Io(stdin)
            code = self._command(command, own)
            last = number == len(pipeline) - 1
            # Within a pipeline only errors go to the terminal.
            io.chunks += [chunk for chunk in own.chunks if last or chunk[0] == STDERR]
            stdin = own.joined(STDOUT)
        return code

    def _command(self, command: _Simple, io: Io) -> int:
        words = [self._expand(word) for word in command.words]
        while words and _ASSIGNMENT.match(words[0]):
            name, _, value = words.pop(0).partition("=")
            self.variables[name] = value
        for operator, target in command.redirections:
            if operator == "<":
                try:
                    io.stdin = self._read(self._expand(target))
                except OSError as error:
                    io.err(f"sh: can't open {self._expand(target)}: {_reason(error)}\n")
                    return 1
        own = Io(io.stdin)
        code = self._invoke(words, own) if words else 0
        return self._redirected(command, own, io, code)

    def _invoke(self, words: list[str], io: Io) -> int:
        name = words[0].removeprefix("/system/bin/")
        if name == "exit":
            self.over = True
            return int(words[1]) & 255 if len(words) > 1 and words[1].isdecimal() else self.code
        program = self._programs.get(name)
        if program is None:
            io.err(f"/system/bin/sh: {words[0]}: inaccessible or not found\n")
            return 127
        try:
            return program(words[1:], io)
        except CommandError as error:
            io.err(f"{error}\n")
            return error.code
        except OSError as error:
            io.err(f"{name}: {error}\n")
            return 1

    def _redirected(self, command: _Simple, own: Io, io: Io, code: int) -> int:
        """Send each stream where the redirections say, in their order: `2>&1` means where stdout goes by then."""
        target: dict[int, str | None] = {STDOUT: None, STDERR: None}
        merged = False
        for operator, word in command.redirections:
            if operator == "2>&1":
                target[STDERR], merged = target[STDOUT], True
            elif operator != "<":
                stream = STDERR if operator.startswith("2") else STDOUT
                target[stream] = self._expand(word)
                if operator.endswith(">>"):
                    own.chunks.insert(0, (stream, self._old(self._expand(word))))
        for stream, path in target.items():
            if path is None:
                shown = STDOUT if stream == STDERR and merged else stream
                io.chunks += [(shown, data) for kind, data in own.chunks if kind == stream]
        for path in {path for path in target.values() if path not in (None, "/dev/null")}:
            data = own.joined(*(stream for stream, to in target.items() if to == path))
            try:
                self._write(path or "", data)
            except OSError as error:
                io.err(f"sh: can't create {path}: {_reason(error)}\n")
                return 1
        return code

    def _old(self, path: str) -> bytes:
        try:
            return self._read(path)
        except OSError:
            return b""

    def _expand(self, parts: list[Part]) -> str:
        merged: list[Part] = []
        for text, active in parts:
            # A name must be seen whole, whatever its pieces.
            if merged and active and merged[-1][1]:
                merged[-1] = (merged[-1][0] + text, True)
            else:
                merged.append((text, active))
        shown = [_VARIABLE.sub(self._value, text) if active and "$" in text else text for text, active in merged]
        return "".join(shown).replace("\0", "$")

    def _value(self, found: re.Match[str]) -> str:
        if found.group(1):
            return str(self.code)
        return self.variables.get(found.group(2) or found.group(3), "")


def _reason(error: OSError) -> str:
    return str(error).rpartition(": ")[2]


def quote(text: str) -> str:
    """One word of a command line, whatever it holds."""
    return "'" + text.replace("'", "'\\''") + "'"
