"""`rollwright view`: a local web page over run folders, live while they run."""

from __future__ import annotations

import argparse
import os
import webbrowser
from pathlib import Path


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "folders",
        metavar="FOLDER",
        type=Path,
        nargs="*",
        help="run folders, or folders that hold run folders (default: runs, else the current folder)",
    )
    parser.add_argument("--port", metavar="N", type=int, help="port on 127.0.0.1; 0 takes any (first free from 7654)")
    parser.add_argument("--no-open", action="store_true", help="print the address and do not open a browser")


def run(arguments: argparse.Namespace) -> None:
    """Serve the page until Ctrl-C."""
    from rollwright.contracts import ConfigError
    from rollwright.view import PageServer, RunCatalogue

    if arguments.port is not None and not 0 <= arguments.port < 65536:
        raise ConfigError(f"--port is {arguments.port}; a port is a number from 0 to 65535")
    # `runs` is where recipes write; a user may as well start inside of it.
    folders = arguments.folders or [Path("runs") if Path("runs").is_dir() else Path()]
    catalogue = RunCatalogue(folders)
    server = PageServer(catalogue, port=arguments.port)
    found = len(catalogue.runs())
    where = ", ".join(map(str, folders))
    count = f"{found} run{'' if found == 1 else 's'}" if found else "no runs yet"
    # Flushed: a program that starts this one as a child reads the address from a pipe.
    print(f"{count} in {where}: {server.url} (Ctrl-C ends it)", flush=True)
    # Without a display `webbrowser` would start a text browser in this terminal.
    if not arguments.no_open and os.environ.get("DISPLAY", os.environ.get("WAYLAND_DISPLAY", "")):
        webbrowser.open(server.url)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        # The prompt of the shell must not follow ^C on the same line.
        print()
    finally:
        server.server_close()
