"""Task templates of Mail."""

from __future__ import annotations

import random
from collections.abc import Iterator

from ..apps import contacts, mail
from ..backend import DeviceState
from ..handset.contents import SUBJECTS, Data, some_words
from .template import Hands, Params, Template, matching


class SendMail(Template):
    """Write a mail."""

    name, split, difficulty, complexity = "mail_send", "train", "medium", 1.6
    goal = "Send a mail to {to} with the subject {subject} and the text {body}."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Draw a contact, a subject and a text."""
        person = rng.choice(data.all(contacts.URI))
        return {"to": person["email"], "subject": some_words(rng).capitalize(), "body": some_words(rng, 4)}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """Such a mail was sent once."""
        wanted = {"recipient": p["to"], "subject": p["subject"], "body": p["body"]}
        return len(matching(state, mail.URI, folder="Sent", **wanted)) == 1

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Fill in the form and send."""
        yield from hands.open("Mail")
        yield from hands.tap("Compose")
        yield from hands.type("To", p["to"])
        yield from hands.type("Subject", p["subject"])
        yield from hands.type("Message", p["body"])
        yield from hands.tap("Send")

    def near(self, p: Params) -> Params:
        """An address with a letter more."""
        return {**p, "to": "x" + p["to"]}


class _OneMail(Template):
    """A task about one of the mails in the inbox; the near miss is the same done to another one."""

    def prepare(self, rng: random.Random, data: Data) -> Params:
        rows = [row for row in data.all(mail.URI) if row["subject"] in SUBJECTS]
        one, other = rng.sample(rows, 2)
        # Two senders, so that the near miss is wrong also where the sender is asked for.
        one["sender"], other["sender"] = "ada@example.org", "bob@example.org"
        p = {"subject": one["subject"], "sender": one["sender"], "body": one["body"]}
        return {**p, "other": [other["subject"], other["sender"], other["body"]]}

    def near(self, p: Params) -> Params:
        subject, sender, body = p["other"]
        return {**p, "subject": subject, "sender": sender, "body": body}

    def open_mail(self, hands: Hands, p: Params) -> Iterator[str]:
        yield from hands.open("Mail")
        yield from hands.tap(p["subject"], role="button")


class ReplyToMail(_OneMail):
    """Reply to a mail."""

    name, split, difficulty, complexity = "mail_reply", "validation", "medium", 1.4
    goal = "Reply to the mail with the subject {subject}: {reply}"

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Draw the reply too."""
        return {**super().prepare(rng, data), "reply": some_words(rng, 3)}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """The reply went to the sender under the mail's subject."""
        wanted = {"recipient": p["sender"], "subject": f"Re: {p['subject']}", "body": p["reply"]}
        return bool(matching(state, mail.URI, folder="Sent", **wanted))

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Open the mail, reply, and send."""
        yield from self.open_mail(hands, p)
        yield from hands.tap("Reply")
        yield from hands.type("Message", p["reply"])
        yield from hands.tap("Send")


class ForwardMail(_OneMail):
    """Forward a mail to an address."""

    name, split, difficulty, complexity = "mail_forward", "test", "hard", 1.6
    goal = "Forward the mail with the subject {subject} to {to}."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Draw the address too."""
        return {**super().prepare(rng, data), "to": f"{some_words(rng, 1)}@example.org"}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """The mail's text went there under its subject."""
        wanted = {"recipient": p["to"], "subject": f"Fwd: {p['subject']}", "body": p["body"].strip()}
        return bool(matching(state, mail.URI, folder="Sent", **wanted))

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Open the mail, forward, and send."""
        yield from self.open_mail(hands, p)
        yield from hands.tap("Forward")
        yield from hands.type("To", p["to"])
        yield from hands.tap("Send")


class StarMail(_OneMail):
    """Star one mail."""

    name, split, difficulty, complexity = "mail_star", "train", "easy", 1.0
    goal = "Star the mail with the subject {subject}."

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """That mail has a star, and no other."""
        return [row["subject"] for row in matching(state, mail.URI, starred=1)] == [p["subject"]]

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Open the mail and star it."""
        yield from self.open_mail(hands, p)
        yield from hands.tap("Add star")


class ArchiveMail(_OneMail):
    """Archive one mail."""

    name, split, difficulty, complexity = "mail_archive", "train", "easy", 1.0
    goal = "Archive the mail with the subject {subject}."

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """That mail is in the archive, and no other."""
        return [row["subject"] for row in matching(state, mail.URI, folder="Archive")] == [p["subject"]]

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Open the mail and archive it."""
        yield from self.open_mail(hands, p)
        yield from hands.tap("Archive")


class DeleteMail(_OneMail):
    """Delete one mail."""

    name, split, difficulty, complexity = "mail_delete", "validation", "easy", 1.0
    goal = "Delete the mail with the subject {subject}."

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """That mail is in the bin, and no other."""
        return [row["subject"] for row in matching(state, mail.URI, folder="Bin")] == [p["subject"]]

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Open the mail and delete it."""
        yield from self.open_mail(hands, p)
        yield from hands.tap("Delete")


class AskSender(_OneMail):
    """Answer with the address from which a mail came."""

    name, split, difficulty, complexity, question = "mail_ask_sender", "train", "medium", 1.0, True
    goal = "From which address did the mail with the subject {subject} come?"

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """The answer is the sender's address; case does not count."""
        return answer.strip().lower() == p["sender"]

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Open the mail and read the address."""
        yield from self.open_mail(hands, p)
        yield from hands.answer(hands.read("From ").removeprefix("From "))


TEMPLATES: tuple[Template, ...] = (
    SendMail(),
    ReplyToMail(),
    ForwardMail(),
    StarMail(),
    ArchiveMail(),
    DeleteMail(),
    AskSender(),
)
