"""Task templates of Phone, the dialer."""

from __future__ import annotations

import random
from collections.abc import Iterator

from ..apps import contacts, dialer
from ..backend import DeviceState
from ..handset.contents import DAY_MS, Data, new_name
from ..handset.setup import START_MS
from .people import AboutContact, open_card
from .template import Hands, Params, Template, matching


class Dial(Template):
    """Call a number digit by digit."""

    name, split, difficulty, complexity = "phone_dial", "train", "medium", 2.6
    goal = "Call the number {phone}."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Draw six digits."""
        return {"phone": str(rng.randrange(10**5, 10**6))}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """The log has an outgoing call to that number."""
        return bool(matching(state, dialer.URI, number=p["phone"], type=dialer.OUTGOING))

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Tap the digits and call."""
        yield from hands.open("Phone")
        for digit in p["phone"]:
            yield from hands.tap(digit, rid=f"key_{digit}")
        yield from hands.tap("Call", rid="call")

    def near(self, p: Params) -> Params:
        """The number without its last digit."""
        return {"phone": p["phone"][:-1]}


class CallContact(AboutContact):
    """Call somebody from the contacts."""

    name, split, difficulty, complexity = "phone_call_contact", "validation", "easy", 1.0
    goal = "Call {name}."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Draw the contact, and empty the log of calls."""
        data.clear(dialer.URI)
        return super().prepare(rng, data)

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """The one outgoing call went to the contact's number."""
        return [row["number"] for row in matching(state, dialer.URI, type=dialer.OUTGOING)] == [p["phone"]]

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Open the card and call from there."""
        yield from open_card(hands, p["name"])
        yield from hands.tap("Call")


class _Calls(AboutContact):
    """A task about the call log: the newest call is a missed one of `name`, the one before of `other`."""

    def prepare(self, rng: random.Random, data: Data) -> Params:
        p = super().prepare(rng, data)
        data.clear(dialer.URI)
        for number, ago in ((p["phone"], 60_000), (p["other_phone"], 120_000)):
            data.add(dialer.URI, number=number, type=dialer.MISSED, date_ms=START_MS - ago)
        third = rng.choice([row["phone"] for row in data.all(contacts.URI)])
        data.add(dialer.URI, number=third, type=dialer.INCOMING, date_ms=START_MS - DAY_MS, duration_s=60)
        return p

    def open_call(self, hands: Hands, p: Params) -> Iterator[str]:
        yield from hands.open("Phone")
        yield from hands.tap("Recents", rid="tab")
        yield from hands.tap(p["name"], rid="call_row")


class Block(_Calls):
    """Block the number of a missed call."""

    name, split, difficulty, complexity = "phone_block", "train", "medium", 1.4
    goal = "Block the number of {name}, whose call you have just missed."

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """That number is blocked, and no other."""
        return [row["number"] for row in matching(state, dialer.BLOCKED_URI)] == [p["phone"]]

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Open the call in the log and block from there."""
        yield from self.open_call(hands, p)
        yield from hands.tap("Block number")


class CallBack(_Calls):
    """Call the number of the last missed call."""

    name, split, difficulty, complexity = "phone_call_back", "test", "medium", 1.4
    goal = "Call back the person whose call was missed last."

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """The one outgoing call went to that number."""
        return [row["number"] for row in matching(state, dialer.URI, type=dialer.OUTGOING)] == [p["phone"]]

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Open the call in the log and call back."""
        yield from self.open_call(hands, p)
        yield from hands.tap("Call back")


class CallNobody(Template):
    """Look for a contact that does not exist, and say that it cannot be done."""

    name, split, difficulty, complexity, feasible = "phone_call_unknown", "train", "medium", 1.6, False
    goal = "Call {name} from your contacts. If there is no such contact, say that it cannot be done."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Draw a name that no contact has."""
        return {"name": new_name(rng, data)}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """Never, since there is nobody to call."""
        return False  # nothing on the phone can make it right: only saying so counts

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Search the contacts for the name, in vain."""
        yield from hands.open("Contacts")
        yield from hands.type("Search contacts", p["name"].split()[0])

    def near(self, p: Params) -> Params:
        """The same task: nothing is near to what cannot be done."""
        return p


TEMPLATES: tuple[Template, ...] = (
    Dial(),
    CallContact(),
    Block(),
    CallBack(),
    CallNobody(),
)
