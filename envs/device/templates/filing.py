"""Task templates of Files, and some that need two apps."""

from __future__ import annotations

import random
from collections.abc import Iterator

from ..apps import contacts, messages, notes
from ..backend import DeviceState
from ..handset.contents import Data, new_name, new_phone_number, some_words
from .template import Hands, Params, Template, matching, same_answer

DOCUMENTS, DOWNLOAD = "/sdcard/Documents", "/sdcard/Download"


class MakeFile(Template):
    """Create a file with a text."""

    name, split, difficulty, complexity = "files_create", "train", "medium", 1.8
    goal = "Create the file {file} with the text {text} in the folder Documents."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Draw the file's name and its text."""
        return {"file": f"{some_words(rng, 1)}.txt", "text": some_words(rng, 3), "folder": "Documents"}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """The file is in Documents and holds just that text."""
        found = state.file(f"{DOCUMENTS}/{p['file']}")
        return found is not None and found.decode("utf-8", "replace").strip() == p["text"]

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Create the file in the folder, type the text, and save."""
        yield from hands.open("Files")
        yield from hands.tap(p["folder"], role="button")
        yield from hands.tap("New file")
        yield from hands.type("Name", p["file"])
        yield from hands.tap("OK")
        yield from hands.type("Text", p["text"])
        yield from hands.tap("Save")

    def near(self, p: Params) -> Params:
        """The same file in another folder."""
        return {**p, "folder": "Download"}


class _OneFile(Template):
    """A task about one of two files in Download; the near miss is the same done to the other one."""

    def prepare(self, rng: random.Random, data: Data) -> Params:
        names = [f"{word}.txt" for word in rng.sample(("lotus", "maple", "nutmeg", "olive", "poppy"), 2)]
        texts = [some_words(rng, 3) for _ in names]
        for name, text in zip(names, texts, strict=True):
            data.files[f"{DOWNLOAD}/{name}"] = text
        return {"file": names[0], "text": texts[0], "other": names[1]}

    def near(self, p: Params) -> Params:
        return {**p, "file": p["other"]}

    def open_folder(self, hands: Hands) -> Iterator[str]:
        yield from hands.open("Files")
        yield from hands.tap("Download", role="button")


class DeleteFile(_OneFile):
    """Delete one of two files."""

    name, split, difficulty, complexity = "files_delete", "train", "medium", 1.2
    goal = "Delete the file {file} in the folder Download."

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """The file is gone, and the other one is still there."""
        names = state.files(DOWNLOAD)
        return p["file"] not in names and p["other"] in names

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Hold the file, and delete it from its menu."""
        yield from self.open_folder(hands)
        yield from hands.hold(p["file"])
        yield from hands.tap("Delete", rid="delete")


class RenameFile(_OneFile):
    """Give a file another name."""

    name, split, difficulty, complexity = "files_rename", "validation", "medium", 1.6
    goal = "Rename the file {file} in the folder Download to {new}."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Draw the new name too."""
        return {**super().prepare(rng, data), "new": f"{some_words(rng, 1)}-{rng.randint(10, 99)}.txt"}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """A file of the new name has the old text, and the old name is gone."""
        found = state.file(f"{DOWNLOAD}/{p['new']}")
        return found == p["text"].encode() and p["file"] not in state.files(DOWNLOAD)

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Hold the file, and rename it from its menu."""
        yield from self.open_folder(hands)
        yield from hands.hold(p["file"])
        yield from hands.tap("Rename")
        yield from hands.type("Name", p["new"])
        yield from hands.tap("OK")


class MoveFile(_OneFile):
    """Move a file into another folder."""

    name, split, difficulty, complexity = "files_move", "test", "hard", 1.6
    goal = "Move the file {file} from the folder Download to {target}."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Draw the target too."""
        return {**super().prepare(rng, data), "target": f"/sdcard/{rng.choice(('Documents', 'Music', 'Pictures'))}"}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """The file is in the target with its text, and no longer where it was."""
        return state.file(f"{p['target']}/{p['file']}") == p["text"].encode() and p["file"] not in state.files(DOWNLOAD)

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Hold the file, and pick the target from its menu."""
        yield from self.open_folder(hands)
        yield from hands.hold(p["file"])
        yield from hands.tap("Move")
        yield from hands.tap(p["target"], rid="target")


class AskFile(_OneFile):
    """Answer with the text of a file."""

    name, split, difficulty, complexity, question = "files_ask_text", "train", "easy", 1.2, True
    goal = "Which text stands in the file {file} in the folder Download?"

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """The answer is the file's text."""
        return same_answer(answer, p["text"])

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Open the file and read it."""
        yield from self.open_folder(hands)
        yield from hands.tap(p["file"])
        yield from hands.answer(hands.first("line"))


class MakeFolder(Template):
    """Make a folder with an empty file in it."""

    name, split, difficulty, complexity = "files_new_folder", "train", "easy", 1.4
    goal = "Make a folder called {folder} and in it an empty file called {file}."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Draw both names."""
        return {"folder": some_words(rng, 1).capitalize(), "file": f"{some_words(rng, 1)}.txt"}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """The folder holds that file and nothing else."""
        return state.files(f"/sdcard/{p['folder']}") == [p["file"]]

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Make the folder, open it, and create the file there."""
        yield from hands.open("Files")
        yield from hands.tap("New folder")
        yield from hands.type("Name", p["folder"])
        yield from hands.tap("OK")
        yield from hands.tap(p["folder"], role="button")
        yield from hands.tap("New file")
        yield from hands.type("Name", p["file"])
        yield from hands.tap("OK")

    def near(self, p: Params) -> Params:
        """A folder whose name has one letter more."""
        return {**p, "folder": p["folder"] + "s"}


class NoteToContact(Template):
    """Read a person from a note and add that person to the contacts."""

    name, split, difficulty, complexity = "notes_to_contact", "train", "hard", 2.2
    goal = "The note New member holds a name and a phone number. Add that person to the contacts."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Draw a person, and write the note."""
        p = {"name": new_name(rng, data), "phone": new_phone_number(rng)}
        data.add(notes.URI, title="New member", body=f"{p['name']}, {p['phone']}")
        return {**p, "hint": "Phone"}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """A contact has the name and the number of the note."""
        return bool(matching(state, contacts.URI, name=p["name"], phone=p["phone"]))

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Read the note, then fill in a contact."""
        yield from hands.open("Notes")
        yield from hands.tap("New member")
        found = hands.find("Note", role="input")
        name, _, phone = (found.name if found else "").partition(", ")
        yield from hands.open("Contacts")
        yield from hands.tap("Create contact")
        yield from hands.type("Name", name)
        yield from hands.type(p["hint"], phone)
        yield from hands.tap("Save")

    def near(self, p: Params) -> Params:
        """The number in the wrong field."""
        return {**p, "hint": "Company"}


class FileToMessage(_OneFile):
    """Send the text of a file as a message."""

    name, split, difficulty, complexity = "files_to_message", "validation", "hard", 2.4
    goal = "Send {name} the text of the file {file} in the folder Download as a message."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Draw whom to send it to."""
        person = rng.choice(data.all(contacts.URI))
        return {**super().prepare(rng, data), "name": person["name"], "phone": person["phone"]}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """The file's text went to that person's number."""
        return bool(matching(state, messages.URI, address=p["phone"], body=p["text"], type=messages.SENT))

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Read the file, then write the message."""
        yield from self.open_folder(hands)
        yield from hands.tap(p["file"])
        text = hands.first("line")
        yield from hands.open("Messages")
        yield from hands.tap("New message")
        yield from hands.type("To: name or number", p["name"])
        yield from hands.type("Text message", text)
        yield from hands.tap("Send")


TEMPLATES: tuple[Template, ...] = (
    MakeFile(),
    DeleteFile(),
    RenameFile(),
    MoveFile(),
    AskFile(),
    MakeFolder(),
    NoteToContact(),
    FileToMessage(),
)
