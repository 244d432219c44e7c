"""Files: walk through the folders of the storage, read and write text files, rename, move and delete."""

from __future__ import annotations

from ..screen import widgets as w
from .app import App, Handler, Ui

ROOT = "/sdcard"
_MAX_SHOWN = 1500


def main(ui: Ui) -> w.Widget:
    """The root folder."""
    return folder(ui, ROOT)


def inner(ui: Ui) -> w.Widget:
    """Another folder."""
    return folder(ui, ui.args["path"])


def folder(ui: Ui, path: str) -> w.Widget:
    """The content of a folder."""
    store = ui.phone.store
    if not store.is_folder(path):
        return w.screen(w.toolbar("Files"), w.label("This folder was deleted.", rid="empty"))
    folders, files = store.list_folder(path)
    rows = [
        w.item(name, detail="Folder", on_tap=_enters(ui, path, name), on_long_press=_asks(ui, path, name))
        for name in folders
    ]
    for name in files:
        size = store.stat_file(f"{path}/{name}")[0]
        rows.append(
            w.item(name, detail=f"{size} bytes", on_tap=_reads(ui, path, name), on_long_press=_asks(ui, path, name))
        )
    title = "Files" if path == ROOT else path.rpartition("/")[2]
    return w.screen(
        w.toolbar(
            title,
            w.icon("New folder", lambda: _name(ui, "new_folder", path, ""), rid="new_folder"),
            w.icon("New file", lambda: _name(ui, "new_file", path, ""), rid="new_file"),
        ),
        w.scroll("list", *(rows or [w.label("Empty folder", rid="empty")])),
    )


def _enters(ui: Ui, path: str, name: str) -> Handler:
    return lambda: ui.go("inner", path=f"{path}/{name}")


def _reads(ui: Ui, path: str, name: str) -> Handler:
    return lambda: ui.go("viewer", path=f"{path}/{name}")


def _asks(ui: Ui, path: str, name: str) -> Handler:
    return lambda: ui.show("file_menu", folder=path, name=name)


def _name(ui: Ui, dialog: str, path: str, name: str) -> None:
    """Open a dialog that asks for a name."""
    ui.show(dialog, folder=path, name=name)
    ui.frame.fields["file_name"] = name


def viewer(ui: Ui) -> w.Widget:
    """The text of a file, line by line."""
    path = ui.args["path"]
    title = path.rpartition("/")[2]
    parent = path.rpartition("/")[0]
    try:
        text = ui.phone.store.read_file(path).decode("utf-8", "replace")
    except FileNotFoundError:
        return w.screen(w.toolbar(title), w.label("This file was deleted.", rid="empty"))

    def edit() -> None:
        ui.go("editor", path=path)
        # `go` has opened the frame of the editor, which is no longer the one of this screen.
        ui.phone.frame.fields["text"] = text

    shown = "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text[:_MAX_SHOWN])
    lines = [w.label(line, rid="line") for line in shown.split("\n")] if shown else [w.label("Empty file", rid="empty")]
    return w.screen(
        w.toolbar(
            title,
            w.icon("Edit", edit, rid="edit"),
            w.icon("More options", lambda: ui.show("file_menu", folder=parent, name=title), rid="more"),
        ),
        w.scroll("list", *lines),
    )


def editor(ui: Ui) -> w.Widget:
    """A file's text in a field."""
    path = ui.args["path"]

    def save() -> None:
        if _attempt(ui, lambda: ui.phone.store.write_file(path, ui.value("text").encode(), ui.phone.now_ms)):
            ui.back()

    return w.screen(
        w.toolbar(path.rpartition("/")[2], w.button("Save", save, rid="save")),
        ui.field("text", "Text", multiline=True),
    )


def _attempt(ui: Ui, act: Handler) -> bool:
    """Do something with files; what goes wrong is said on the screen."""
    try:
        act()
    except OSError as error:
        ui.say(str(error))
        return False
    return True


def _clean_name(ui: Ui) -> str:
    """What was typed, if it can name a file; else empty, and said so."""
    name = ui.value("file_name").strip()
    if not name or "/" in name or name in (".", ".."):
        ui.say("Use a name without slashes")
        return ""
    return name


def file_menu(ui: Ui) -> w.Widget:
    """What can be done with a file or a folder."""
    place, name = ui.dialog_args["folder"], ui.dialog_args["name"]
    is_folder = ui.phone.store.is_folder(f"{place}/{name}")

    def delete() -> None:
        ui.dismiss()
        _attempt(ui, lambda: ui.phone.store.delete_file(f"{place}/{name}"))
        # The file that is looked at is gone.
        if ui.frame.screen == "viewer":
            ui.back()

    only_files = [
        w.button("Rename", lambda: _name(ui, "rename", place, name), rid="rename"),
        w.button("Move", lambda: ui.show("move", folder=place, name=name), rid="move"),
    ]
    return w.dialog(
        name,
        *([] if is_folder else only_files),
        w.button("Delete", delete, rid="delete"),
        w.button("Cancel", ui.dismiss, rid="button2"),
    )


def _name_dialog(ui: Ui, title: str, done: Handler) -> w.Widget:
    return w.dialog(
        title,
        ui.field("file_name", "Name", on_enter=done),
        w.row(w.button("Cancel", ui.dismiss, rid="button2"), w.button("OK", done, rid="button1")),
    )


def new_folder(ui: Ui) -> w.Widget:
    """Asks for the name of a folder."""

    def done() -> None:
        place, name = ui.dialog_args["folder"], _clean_name(ui)
        if name and _attempt(ui, lambda: ui.phone.store.make_folder(f"{place}/{name}")):
            ui.dismiss()

    return _name_dialog(ui, "New folder", done)


def new_file(ui: Ui) -> w.Widget:
    """Asks for the name of a file."""

    def done() -> None:
        place, name = ui.dialog_args["folder"], _clean_name(ui)
        path = f"{place}/{name}"
        if name and _attempt(ui, lambda: ui.phone.store.write_file(path, b"", ui.phone.now_ms)):
            ui.dismiss()
            ui.go("editor", path=path)

    return _name_dialog(ui, "New file", done)


def rename(ui: Ui) -> w.Widget:
    """Asks for another name."""

    def done() -> None:
        place, old, name = ui.dialog_args["folder"], ui.dialog_args["name"], _clean_name(ui)
        if name and _attempt(ui, lambda: ui.phone.store.move_file(f"{place}/{old}", f"{place}/{name}")):
            ui.dismiss()
            if ui.frame.screen == "viewer":
                ui.frame.args["path"] = f"{place}/{name}"

    return _name_dialog(ui, "Rename", done)


def move(ui: Ui) -> w.Widget:
    """Asks for the folder to move to."""
    place, name = ui.dialog_args["folder"], ui.dialog_args["name"]

    def to(target: str) -> Handler:
        def act() -> None:
            ui.dismiss()
            if _attempt(ui, lambda: ui.phone.store.move_file(f"{place}/{name}", f"{target}/{name}")):
                ui.say(f"Moved to {target}")
            if ui.frame.screen == "viewer":
                ui.back()

        return act

    targets = [row[0] for row in ui.query("SELECT path FROM folders ORDER BY path LIMIT 40")]
    buttons = [w.button(path, to(path), rid="target") for path in targets if path != place]
    return w.dialog("Move to", w.scroll("targets", *buttons), w.button("Cancel", ui.dismiss, rid="button2"))


APP = App(
    name="Files",
    package="org.rollwright.files",
    screens={"main": main, "inner": inner, "viewer": viewer, "editor": editor},
    dialogs={"file_menu": file_menu, "new_folder": new_folder, "new_file": new_file, "rename": rename, "move": move},
    permission="access files",
    colour="#34a853",
)
