"""What a host can open on the phone: shells, files, and the port of uiautomator2's helper.

A `Service` belongs to one stream. It answers what the host writes into a `Channel`; all of it happens in the server's
thread, so a service never waits.
"""

from __future__ import annotations

import re

from . import wire
from .automator import Automator
from .commands import COMMANDS, Command, Handset
from .programs import FILE_PROGRAMS
from .shell import STDERR, STDOUT, Io, Program, Shell
from .sync import SyncService
from .system import SYSTEM_COMMANDS
from .wire import Channel, Service

# Hosts keep stdin open, so a command that reads nothing must not wait for its end. Those that do read are few.
_READS_STDIN = re.compile(r"\s*(cat\s*(>|$)|tee\b|sh\s*$)")

MAX_STDIN = 64 << 20
"""Bytes of input that a command takes; what comes after is dropped."""


def open_service(handset: Handset, name: str) -> Service | None:
    """The service of that name; None where a phone has none."""
    kind, _, rest = name.partition(":")
    if kind == "exec" or kind == "shell":
        return RawShell(handset, rest)
    if kind.startswith("shell,"):
        return PacketShell(handset, rest) if "v2" in kind.split(",") else RawShell(handset, rest)
    if kind == "sync":
        return SyncService(handset.files)
    if name == "tcp:9008":
        return Automator(handset)
    return None


def make_shell(handset: Handset) -> Shell:
    """A shell with all programs of the phone."""
    if not handset.programs:
        # Bound once: a stream carries one command, and most of a command's time would go into this.
        known = {**FILE_PROGRAMS, **SYSTEM_COMMANDS, **COMMANDS}
        handset.programs.update({name: _bound(handset, command) for name, command in known.items()})
    programs = dict(handset.programs)
    shell = Shell(programs, handset.files.read, handset.files.write)
    programs["sh"] = _sub_shell(shell)
    return shell


def _bound(handset: Handset, command: Command) -> Program:
    return lambda args, io: command(handset, args, io)


def _sub_shell(shell: Shell) -> Program:
    """`sh -c LINE`"""

    def run(args: list[str], io: Io) -> int:
        line = args[1] if args[:1] == ["-c"] and len(args) > 1 else io.stdin.decode(errors="replace")
        chunks, code = shell.run(line, io.stdin)
        io.chunks += chunks
        return code

    return run


class RawShell:
    """`shell:` and `exec:`: one line's output, both streams together; without a line, an interactive one."""

    def __init__(self, handset: Handset, line: str) -> None:
        self._line = line
        self._shell = make_shell(handset)
        self._typed = b""

    def start(self, channel: Channel) -> None:
        """Run the line and close; without a line, show a prompt."""
        if self._line:
            channel.write(b"".join(data for _, data in self._shell.run(self._line)[0]))
            channel.finish()
        else:
            channel.write(b"phone:/ $ ")

    def received(self, channel: Channel, data: bytes) -> None:
        """Run each line that is complete."""
        *lines, self._typed = (self._typed + data).replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            if line.strip() and not self._shell.over:
                channel.write(b"".join(out for _, out in self._shell.run(line.decode(errors="replace"))[0]))
        if self._shell.over or b"\4" in self._typed:
            channel.finish()
        elif lines:
            channel.write(b"phone:/ $ ")


class PacketShell:
    """`shell,v2`: stdout, stderr and the exit code in packets. A command reads its input to the end before it runs."""

    def __init__(self, handset: Handset, line: str) -> None:
        self._line = line
        self._shell = make_shell(handset)
        self._decoder = wire.PacketDecoder()
        self._stdin = bytearray()
        self._ended = False

    def start(self, channel: Channel) -> None:
        """Run a line that reads no input; without a line, show a prompt."""
        if not self._line:
            channel.write(wire.shell_packet(wire.SHELL_STDOUT, b"phone:/ $ "))
        elif not _READS_STDIN.match(self._line):
            self._finish(channel, b"")

    def received(self, channel: Channel, data: bytes) -> None:
        """Collect input, and run what is complete."""
        for kind, content in self._decoder.feed(data):
            if self._ended:
                # Hosts close their input also after the command has ended.
                return
            if kind == wire.SHELL_STDIN:
                self._stdin += content[: MAX_STDIN - len(self._stdin)]
                if not self._line:
                    self._interactive(channel)
            elif kind == wire.SHELL_CLOSE_STDIN:
                self._finish(channel, bytes(self._stdin))

    def _interactive(self, channel: Channel) -> None:
        *lines, rest = bytes(self._stdin).replace(b"\r", b"\n").split(b"\n")
        self._stdin = bytearray(rest)
        for line in lines:
            if line.strip() and not self._shell.over:
                channel.write(_packets(self._shell.run(line.decode(errors="replace"))[0]))
        if self._shell.over:
            self._finish(channel, b"")
        elif lines:
            channel.write(wire.shell_packet(wire.SHELL_STDOUT, b"phone:/ $ "))

    def _finish(self, channel: Channel, stdin: bytes) -> None:
        """Output and exit code in one piece: a client needs no second round to learn the code."""
        self._ended = True
        line = "" if self._shell.over else self._line or stdin.decode(errors="replace")
        chunks, code = self._shell.run(line, stdin) if line else ([], self._shell.code)
        channel.write(_packets(chunks) + wire.shell_packet(wire.SHELL_EXIT, bytes([code & 255])))
        channel.finish()


def _packets(chunks: list[tuple[int, bytes]]) -> bytes:
    kinds = {STDOUT: wire.SHELL_STDOUT, STDERR: wire.SHELL_STDERR}
    return b"".join(wire.shell_packet(kinds[stream], data) for stream, data in chunks if data)
