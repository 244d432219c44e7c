"""Task templates of Mail."""

from __future__ import annotations

import random
from collections.abc import Iterator

from ..apps import contacts, mail
from ..backend import DeviceState
from ..handset.contents import SUBJECTS, Data, some_words
from .template import Hands, Params, Template, matching


class SendMail(Template):
    name, split, difficulty, complexity = "mail_send", "train", "medium", 1.6
    goal = "Send a mail to {to} with the subject {subject} and the text {body}."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        person = rng.choice(data.all(contacts.URI))
        return {"to": person["email"], "subject": some_words(rng).capitalize(), "body": some_words(rng, 4)}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        wanted = {"recipient": p["to"], "subject": p["subject"], "body": p["body"]}
        return len(matching(state, mail.URI, folder="Sent", **wanted)) == 1

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        yield from hands.open("Mail")
        yield from hands.tap("Compose")
        yield from hands.type("To", p["to"])
        yield from hands.type("Subject", p["subject"])
        yield from hands.type("Message", p["body"])
        yield from hands.tap("Send")

    def near(self, p: Params) -> Params:
        return {**p, "to": "x" + p["to"]}


class _OneMail(Template):
    """A task about one of the mails in the inbox; the near miss is the same done to another one."""

    def prepare(self, rng: random.Random, data: Data) -> Params:
        rows = [row for row in data.all(mail.URI) if row["subject"] in SUBJECTS]
        one, other = rng.sample(rows, 2)
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
    name, split, difficulty, complexity = "mail_reply", "validation", "medium", 1.4
    goal = "Reply to the mail with the subject {subject}: {reply}"

    def prepare(self, rng: random.Random, data: Data) -> Params:
        return {**super().prepare(rng, data), "reply": some_words(rng, 3)}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        wanted = {"recipient": p["sender"], "subject": f"Re: {p['subject']}", "body": p["reply"]}
        return bool(matching(state, mail.URI, folder="Sent", **wanted))

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        yield from self.open_mail(hands, p)
        yield from hands.tap("Reply")
        yield from hands.type("Message", p["reply"])
        yield from hands.tap("Send")


class ForwardMail(_OneMail):
    name, split, difficulty, complexity = "mail_forward", "test", "hard", 1.6
    goal = "Forward the mail with the subject {subject} to {to}."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        return {**super().prepare(rng, data), "to": f"{some_words(rng, 1)}@example.org"}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        wanted = {"recipient": p["to"], "subject": f"Fwd: {p['subject']}", "body": p["body"].strip()}
        return bool(matching(state, mail.URI, folder="Sent", **wanted))

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        yield from self.open_mail(hands, p)
        yield from hands.tap("Forward")
        yield from hands.type("To", p["to"])
        yield from hands.tap("Send")


class StarMail(_OneMail):
    name, split, difficulty, complexity = "mail_star", "train", "easy", 1.0
    goal = "Star the mail with the subject {subject}."

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        return [row["subject"] for row in matching(state, mail.URI, starred=1)] == [p["subject"]]

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        yield from self.open_mail(hands, p)
        yield from hands.tap("Add star")


class ArchiveMail(_OneMail):
    name, split, difficulty, complexity = "mail_archive", "train", "easy", 1.0
    goal = "Archive the mail with the subject {subject}."

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        return [row["subject"] for row in matching(state, mail.URI, folder="Archive")] == [p["subject"]]

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        yield from self.open_mail(hands, p)
        yield from hands.tap("Archive")


class DeleteMail(_OneMail):
    name, split, difficulty, complexity = "mail_delete", "validation", "easy", 1.0
    goal = "Delete the mail with the subject {subject}."

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        return [row["subject"] for row in matching(state, mail.URI, folder="Bin")] == [p["subject"]]

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        yield from self.open_mail(hands, p)
        yield from hands.tap("Delete")


class AskSender(_OneMail):
    name, split, difficulty, complexity, question = "mail_ask_sender", "train", "medium", 1.0, True
    goal = "From which address did the mail with the subject {subject} come?"

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        return answer.strip().lower() == p["sender"]

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
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
