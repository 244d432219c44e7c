"""Task templates of Contacts and Messages."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import ClassVar

from rollwright.contracts import Split

from ..apps import contacts, messages
from ..backend import DeviceState
from ..handset.contents import MESSAGES, Data, new_name, new_phone_number, some_words
from ..handset.setup import START_MS
from .template import Difficulty, Hands, Params, Template, count, matching, same_answer


def _two(rng: random.Random, data: Data) -> tuple[str, str]:
    """The names of two contacts: the one that is meant, and another one for the near miss."""
    one, other = rng.sample(data.all(contacts.URI), 2)
    return str(one["name"]), str(other["name"])


def _row(data: Data, name: str) -> dict[str, object]:
    return next(dict(row) for row in data.all(contacts.URI) if row["name"] == name)


def open_card(hands: Hands, name: str) -> Iterator[str]:
    """Open the card of a contact."""
    yield from hands.open("Contacts")
    yield from hands.tap(name)


class AboutContact(Template):
    """A task about one contact `name`; the near miss is the same done to `other`."""

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Draw two contacts with their numbers."""
        name, other = _two(rng, data)
        return {"name": name, "other": other, "count": len(data.all(contacts.URI)), **_numbers(data, name, other)}

    def near(self, p: Params) -> Params:
        """The same about the other contact."""
        return {**p, "name": p["other"], "phone": p["other_phone"]}


def _numbers(data: Data, name: str, other: str) -> Params:
    return {"phone": _row(data, name)["phone"], "other_phone": _row(data, other)["phone"]}


class AddContact(Template):
    """Add a person with a phone number."""

    name, complexity = "contacts_add", 1.4
    split: ClassVar[Split] = "train"
    difficulty: ClassVar[Difficulty] = "easy"
    goal = "Add {name} with the phone number {phone} to the contacts."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Draw a name that no contact has, and a number."""
        return {"name": new_name(rng, data), "phone": new_phone_number(rng)}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """A contact has that name and that number."""
        return bool(matching(state, contacts.URI, name=p["name"], phone=p["phone"]))

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Fill in name and number, and save."""
        yield from hands.open("Contacts")
        yield from hands.tap("Create contact")
        yield from hands.type("Name", p["name"])
        yield from hands.type("Phone", p["phone"])
        yield from hands.tap("Save")

    def near(self, p: Params) -> Params:
        """A number whose last digit differs."""
        return {**p, "phone": p["phone"][:-1] + str((int(p["phone"][-1]) + 1) % 10)}


class AddFullContact(AddContact):
    """Add a person with four fields, and star the contact."""

    name, split, difficulty, complexity = "contacts_add_full", "test", "hard", 2.4
    goal = "Add {name} of {company} to the contacts, phone {phone}, email {email}, and star the contact."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Draw company and email too."""
        p = super().prepare(rng, data)
        return {**p, "company": some_words(rng, 1).title(), "email": f"{p['name'].split()[0].lower()}@example.org"}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """A starred contact has all four fields."""
        wanted = {key: p[key] for key in ("name", "phone", "email", "company")}
        return bool(matching(state, contacts.URI, **wanted, starred=1))

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Fill in every field, save, and star the card."""
        yield from hands.open("Contacts")
        yield from hands.tap("Create contact")
        for hint, key in (("Name", "name"), ("Phone", "phone"), ("Email", "email"), ("Company", "company")):
            yield from hands.type(hint, p[key])
        yield from hands.tap("Save")
        yield from hands.tap("Add star")


class DeleteContact(AboutContact):
    """Delete one contact and no other."""

    name, split, difficulty, complexity = "contacts_delete", "train", "medium", 1.4
    goal = "Delete the contact {name}."

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """The contact is gone, and only one is missing."""
        gone = not matching(state, contacts.URI, name=p["name"])
        return gone and count(state, contacts.URI) == p["count"] - 1

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Open the card, delete, and agree."""
        yield from open_card(hands, p["name"])
        yield from hands.tap("Delete")
        yield from hands.tap("Delete", rid="button1")


class ChangeNumber(AboutContact):
    """Give a contact another phone number."""

    name, split, difficulty, complexity = "contacts_change_number", "train", "medium", 1.6
    goal = "Change the phone number of {name} to {number}."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Draw the new number too."""
        return {**super().prepare(rng, data), "number": new_phone_number(rng)}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """The contact has the new number, and there are as many contacts as before."""
        changed = matching(state, contacts.URI, name=p["name"], phone=p["number"])
        return bool(changed) and count(state, contacts.URI) == p["count"]

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Edit the card and save."""
        yield from open_card(hands, p["name"])
        yield from hands.tap("Edit")
        yield from hands.type("Phone", p["number"])
        yield from hands.tap("Save")


class StarContact(AboutContact):
    """Star one contact."""

    name, split, difficulty, complexity = "contacts_star", "validation", "easy", 1.0
    goal = "Star the contact {name}."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Draw the contact, and take all stars away."""
        p = super().prepare(rng, data)
        for row in data.all(contacts.URI):
            row["starred"] = 0
        return p

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """That contact has a star, and no other."""
        return [row["name"] for row in matching(state, contacts.URI, starred=1)] == [p["name"]]

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Open the card and star it."""
        yield from open_card(hands, p["name"])
        yield from hands.tap("Add star")


class AskNumber(AboutContact):
    """Answer with the phone number of a contact."""

    name, split, difficulty, complexity, question = "contacts_ask_number", "train", "easy", 1.0, True
    goal = "What is the phone number of {name}?"

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """The answer is the contact's number."""
        return same_answer(answer, p["phone"])

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Open the card and read the number."""
        yield from open_card(hands, p["name"])
        yield from hands.answer(hands.read("555"))


class SendToContact(AboutContact):
    """Send a message to somebody from the contacts."""

    name, split, difficulty, complexity = "messages_send", "train", "medium", 1.6
    goal = "Send {name} the message: {body}"

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Draw the text too."""
        return {**super().prepare(rng, data), "body": some_words(rng, 3)}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """The text went to the contact's number, and to no other."""
        sent = [row["address"] for row in matching(state, messages.URI, body=p["body"], type=messages.SENT)]
        return sent == [p["phone"]]

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Begin a new message to the name."""
        yield from hands.open("Messages")
        yield from hands.tap("New message")
        yield from hands.type("To: name or number", p["name"])
        yield from hands.type("Text message", p["body"])
        yield from hands.tap("Send")


class SendToNumber(Template):
    """Send a message to a number that is no contact's."""

    name, split, difficulty, complexity = "messages_send_number", "test", "easy", 1.4
    goal = "Send the message {body} to the number {phone}."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Draw number and text."""
        return {"phone": new_phone_number(rng), "body": some_words(rng, 2)}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """The text went to that number once."""
        return len(matching(state, messages.URI, address=p["phone"], body=p["body"], type=messages.SENT)) == 1

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """As for a contact, with the number in place of the name."""
        yield from SendToContact().solve(hands, {**p, "name": p["phone"]})

    def near(self, p: Params) -> Params:
        """A text without its last letter."""
        return {**p, "body": p["body"][:-1]}


class _Talk(AboutContact):
    """A task about a conversation: `name` and `other` have one each, and theirs are the newest."""

    def prepare(self, rng: random.Random, data: Data) -> Params:
        p = super().prepare(rng, data)
        words = iter(rng.sample(MESSAGES, 2))
        for key, ago in (("phone", 1000), ("other_phone", 2000)):
            row = {"address": p[key], "body": f"{next(words)} {some_words(rng, 1)}", "type": messages.RECEIVED}
            data.add(messages.URI, **row, date_ms=START_MS - ago, read=0)
            p["body" if key == "phone" else "other_body"] = row["body"]
        return p

    def near(self, p: Params) -> Params:
        return {**super().near(p), "body": p["other_body"]}


class DeleteTalk(_Talk):
    """Delete one conversation."""

    name, split, difficulty, complexity = "messages_delete_conversation", "validation", "medium", 1.4
    goal = "Delete the conversation with {name}."

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """The conversation is gone, and the other one is still there."""
        gone = not matching(state, messages.URI, address=p["phone"])
        return gone and bool(matching(state, messages.URI, address=p["other_phone"]))

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Open the conversation, delete it, and agree."""
        yield from hands.open("Messages")
        yield from hands.tap(p["name"])
        yield from hands.tap("Delete conversation")
        yield from hands.tap("Delete", rid="button1")


class Reply(_Talk):
    """Answer the last message of somebody."""

    name, split, difficulty, complexity = "messages_reply", "train", "medium", 1.4
    goal = "Answer the last message of {name} with: {reply}"

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Draw the answer too."""
        return {**super().prepare(rng, data), "reply": some_words(rng, 2)}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """The answer went to that person's number, and to no other."""
        sent = [row["address"] for row in matching(state, messages.URI, body=p["reply"], type=messages.SENT)]
        return sent == [p["phone"]]

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Write into the open conversation."""
        yield from hands.open("Messages")
        yield from hands.tap(p["name"])
        yield from hands.type("Text message", p["reply"])
        yield from hands.tap("Send")


class Forward(_Talk):
    """Forward a message to somebody else."""

    name, split, difficulty, complexity = "messages_forward", "test", "hard", 2.2
    goal = "Forward the last message of {name} to {friend}."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Draw a third contact to forward to."""
        p = super().prepare(rng, data)
        others = [r for r in data.all(contacts.URI) if r["name"] not in (p["name"], p["other"])]
        friend = rng.choice(others)
        return {**p, "friend": friend["name"], "friend_phone": friend["phone"]}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """The text of the message went to the friend once."""
        wanted = {"address": p["friend_phone"], "body": p["body"], "type": messages.SENT}
        return len(matching(state, messages.URI, **wanted)) == 1

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Hold the message, and forward it from its menu."""
        yield from hands.open("Messages")
        yield from hands.tap(p["name"])
        yield from hands.hold(p["body"])
        yield from hands.tap("Forward")
        yield from hands.type("To: name or number", p["friend"])
        yield from hands.tap("Send")


class AskMessage(_Talk):
    """Answer with the text of the last message."""

    name, split, difficulty, complexity, question = "messages_ask_last", "train", "easy", 1.0, True
    goal = "What does the last message from {name} say?"

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """The answer is the text; commas do not count."""
        return same_answer(answer.replace(",", " "), p["body"].replace(",", " "))

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Open the conversation and read its first line."""
        yield from hands.open("Messages")
        yield from hands.tap(p["name"])
        yield from hands.answer(hands.first("message"))


TEMPLATES: tuple[Template, ...] = (
    AddContact(),
    AddFullContact(),
    DeleteContact(),
    ChangeNumber(),
    StarContact(),
    AskNumber(),
    SendToContact(),
    SendToNumber(),
    DeleteTalk(),
    Reply(),
    Forward(),
    AskMessage(),
)
