"""Task templates of Browser and Shop."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import ClassVar

from rollwright.contracts import Split

from ..apps import browser, shop
from ..backend import DeviceState
from ..handset.contents import TOWNS, Data, some_words
from ..handset.setup import START_MS
from .template import Difficulty, Hands, Params, Template, count, matching, same_answer


def _towns(rng: random.Random) -> Params:
    town, other = rng.sample(TOWNS, 2)
    return {"town": town, "other": other}


def _fact(data: Data, town: str, start: str) -> str:
    """The line of a town's page that begins so."""
    page = next(row for row in data.all(browser.PAGES) if row["title"] == town)
    return next(line for line in str(page["body"]).split("\n") if start in line)


def _open_town(hands: Hands, town: str) -> Iterator[str]:
    yield from hands.open("Browser")
    yield from hands.tap("Town guide", role="button")
    yield from hands.tap(town, rid="link")


class Bookmark(Template):
    """Bookmark a page of the town guide."""

    name, split, difficulty, complexity = "browser_bookmark", "train", "easy", 1.2
    goal = "Bookmark the page about {town} in the town guide."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Draw two towns."""
        return _towns(rng)

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """The town's page is the one bookmark."""
        marked = [row["url"] for row in matching(state, browser.BOOKMARKS)]
        return marked == [f"guide/{p['town'].lower()}"]

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Follow the guide to the town, and bookmark the page."""
        yield from _open_town(hands, p["town"])
        yield from hands.tap("Add bookmark")

    def near(self, p: Params) -> Params:
        """The page of the other town."""
        return {**p, "town": p["other"]}


class AskInhabitants(Template):
    """Answer with the number of a town's inhabitants."""

    name, complexity, question = "browser_ask_inhabitants", 1.2, True
    split: ClassVar[Split] = "train"
    difficulty: ClassVar[Difficulty] = "medium"
    goal = "How many inhabitants does {town} have, according to the town guide in the browser?"

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Draw two towns, and look the number up."""
        p = _towns(rng)
        return {**p, "number": int(_fact(data, p["town"], "inhabitants").split()[2])}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """The answer is the number."""
        return same_answer(answer, [p["number"]])

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Follow the guide to the town and read the number."""
        yield from _open_town(hands, p["town"])
        yield from hands.answer(hands.number_in(f"{p['town']} has"))

    def near(self, p: Params) -> Params:
        """The number of the other town."""
        return {**p, "town": p["other"]}


class AskMayor(AskInhabitants):
    """Answer with the name of a town's mayor."""

    name, split, difficulty, complexity = "browser_ask_mayor", "test", "medium", 1.2
    goal = "Who is the mayor of {town}? Look it up in the town guide in the browser."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Draw a town and another whose mayor has another first name."""
        p = _towns(rng)
        mayors = {t: _fact(data, t, "mayor").removeprefix("Its mayor is ").removesuffix(".") for t in TOWNS}
        # Names are compared with tolerance: a mayor of the same first name could pass for the right one.
        p["other"] = next((t for t in TOWNS if mayors[t].split()[0] != mayors[p["town"]].split()[0]), p["other"])
        return {**p, "mayor": mayors[p["town"]]}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """The answer is the mayor's name."""
        return same_answer(answer, p["mayor"])

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Follow the guide to the town and read the name."""
        yield from _open_town(hands, p["town"])
        yield from hands.answer(hands.read("Its mayor").removeprefix("Its mayor is ").removesuffix("."))


class LargerTown(Template):
    """Answer with the larger of two towns."""

    name, split, difficulty, complexity, question = "browser_compare", "validation", "hard", 2.0, True
    goal = "Which of the two towns has more inhabitants, {town} or {other}? The town guide in the browser knows."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Draw two towns, and compare them."""
        p = _towns(rng)
        sizes = {t: int(_fact(data, t, "inhabitants").split()[2]) for t in p.values()}
        return {**p, "sign": 1, "larger": max(sizes, key=lambda t: sizes[t])}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """The answer is the larger town."""
        return same_answer(answer, p["larger"])

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Read both pages, one after the other."""
        yield from _open_town(hands, p["town"])
        one = int(hands.number_in(f"{p['town']} has"))
        yield from hands.tap("Town guide", rid="link")
        yield from hands.tap(p["other"], rid="link")
        two = int(hands.number_in(f"{p['other']} has"))
        yield from hands.answer(p["town"] if p["sign"] * one > p["sign"] * two else p["other"])

    def near(self, p: Params) -> Params:
        """The smaller town."""
        return {**p, "sign": -1}


class ClearHistory(Template):
    """Clear the browser's history."""

    name, split, difficulty, complexity = "browser_clear_history", "train", "easy", 1.0
    goal = "Clear the history of the browser."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Visit three pages."""
        for page in rng.sample(data.all(browser.PAGES), 3):
            data.add(browser.HISTORY, url=page["url"], title=page["title"], date_ms=START_MS - rng.randrange(10**7))
        return {"button": "Clear history"}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """The history is empty."""
        return not count(state, browser.HISTORY)

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Open the history and clear it."""
        yield from hands.open("Browser")
        yield from hands.tap("History")
        if p["button"]:
            yield from hands.tap(p["button"])

    def near(self, p: Params) -> Params:
        """The history looked at and left as it is."""
        return {"button": ""}


class _Product(Template):
    """A task about one product of the shop; the near miss is the same done to another one."""

    def prepare(self, rng: random.Random, data: Data) -> Params:
        one, other = rng.sample(data.all(shop.PRODUCTS), 2)
        p = {"product": one["name"], "id": one["_id"], "price": one["price_cents"]}
        return {**p, "other": [other["name"], other["_id"], other["price_cents"]]}

    def near(self, p: Params) -> Params:
        name, key, price = p["other"]
        return {**p, "product": name, "id": key, "price": price}

    def open_product(self, hands: Hands, p: Params) -> Iterator[str]:
        yield from hands.open("Shop")
        yield from hands.tap(p["product"], role="button")


class ToCart(_Product):
    """Put one product into the cart."""

    name, split, difficulty, complexity = "shop_cart", "train", "easy", 1.0
    goal = "Put one {product} into the shop's cart."

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """The cart holds one piece of that product and nothing else."""
        lines = [(row["product_id"], row["quantity"]) for row in matching(state, shop.CART)]
        return lines == [(str(p["id"]), "1")]

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Open the product and add it."""
        yield from self.open_product(hands, p)
        yield from hands.tap("Add to cart")


class SomeToCart(_Product):
    """Put several pieces of a product into the cart."""

    name, split, difficulty, complexity = "shop_cart_quantity", "train", "medium", 1.8
    goal = "Put {number} pieces of {product} into the shop's cart."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Draw the number too."""
        return {**super().prepare(rng, data), "number": rng.randint(2, 5)}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """The cart holds that many pieces and nothing else."""
        lines = [(row["product_id"], row["quantity"]) for row in matching(state, shop.CART)]
        return lines == [(str(p["id"]), str(p["number"]))]

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Raise the number and add them."""
        yield from self.open_product(hands, p)
        for _ in range(p["number"] - 1):
            yield from hands.tap("More", rid="more")
        yield from hands.tap("Add to cart")

    def near(self, p: Params) -> Params:
        """One piece fewer."""
        return {**p, "number": p["number"] - 1}


class PlaceOrder(_Product):
    """Order one product with address and payment."""

    name, split, difficulty, complexity = "shop_order", "validation", "hard", 2.6
    goal = "Order one {product} to the address {address} and pay by {payment}."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Draw address and payment too."""
        address = f"{some_words(rng, 1).capitalize()} street {rng.randint(1, 99)}"
        return {**super().prepare(rng, data), "address": address, "payment": rng.choice(("Invoice", "On delivery"))}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """One order was placed with both, and its one line is one piece of the product."""
        orders = matching(state, shop.ORDERS, address=p["address"], payment=p["payment"], status="Placed")
        lines = [(row["product_id"], row["quantity"]) for row in matching(state, shop.LINES)]
        return len(orders) == 1 and lines == [(str(p["id"]), "1")]

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Add the product, check out, fill in the form, and order."""
        yield from self.open_product(hands, p)
        yield from hands.tap("Add to cart")
        yield from hands.tap("Cart")
        yield from hands.tap("Check out")
        yield from hands.type("Delivery address", p["address"])
        yield from hands.pick("Payment", p["payment"])
        yield from hands.tap("Place order")


class CheapestToCart(Template):
    """Put the cheapest product of a category into the cart."""

    name, split, difficulty, complexity = "shop_cheapest", "test", "hard", 1.8
    goal = "Put the cheapest product of the category {category} into the shop's cart."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Draw a category with several products, and make its cheapest one cheaper still."""
        rows = data.all(shop.PRODUCTS)
        by_category: dict[str, list[tuple[int, int]]] = {}
        for row in rows:
            by_category.setdefault(str(row["category"]), []).append(
                (int(str(row["price_cents"])), int(str(row["_id"])))
            )
        several = {name: sorted(found) for name, found in by_category.items() if len(found) > 1}
        category = rng.choice(sorted(several))
        cheapest, second = several[category][:2]
        rows[cheapest[1] - 1]["price_cents"] = cheapest[0] - 1  # never two at the same price
        return {"category": category, "id": cheapest[1], "sort": "Price: low to high", "second": second[1]}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """The cart holds just that product."""
        return [row["product_id"] for row in matching(state, shop.CART)] == [str(p["id"])]

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Choose the category, sort by price, and add the first one."""
        yield from hands.open("Shop")
        yield from hands.pick("Category", p["category"])
        yield from hands.pick("Sort by", p["sort"])
        rows = [e.name for e in hands.elements if e.class_name == "LinearLayout" and len(e.texts) == 2]
        yield from hands.tap(rows[p.get("place", 0)] if len(rows) > 1 else p["category"], role="button")
        yield from hands.tap("Add to cart")

    def near(self, p: Params) -> Params:
        """The second cheapest."""
        return {**p, "place": 1}


class AskPrice(_Product):
    """Answer with the price of a product."""

    name, split, difficulty, complexity, question = "shop_ask_price", "train", "easy", 1.0, True
    goal = "What does the {product} cost in the shop, in dollars? Answer with the number, such as 12.49."

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """The answer is the price in dollars; a dollar sign does not count."""
        return same_answer(answer.replace("$", ""), [p["price"] / 100], tolerance=0.001)

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Open the product and read the price."""
        yield from self.open_product(hands, p)
        yield from hands.answer(hands.read("$").removeprefix("$"))

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Draw two products, and see that their prices differ."""
        p = super().prepare(rng, data)
        # At one price for both, the near miss would be right.
        if p["price"] == p["other"][2]:
            p["other"][2] = data.all(shop.PRODUCTS)[p["other"][1] - 1]["price_cents"] = p["price"] + 50
        return p


class CancelOrder(_Product):
    """Cancel one of three orders."""

    name, split, difficulty, complexity = "shop_cancel_order", "test", "medium", 1.2
    goal = "Cancel order {id} in the shop."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Place three orders, and draw one."""
        for _ in range(3):
            data.add(shop.ORDERS, total_cents=rng.randrange(999, 9999), address=some_words(rng), payment="Card")
        one, other = rng.sample((1, 2, 3), 2)
        return {"id": one, "other": other}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """That order is cancelled, and no other."""
        return [row["_id"] for row in matching(state, shop.ORDERS, status="Cancelled")] == [str(p["id"])]

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Open the order and cancel it."""
        yield from hands.open("Shop")
        yield from hands.tap("Orders")
        yield from hands.tap(f"Order {p['id']}")
        yield from hands.tap("Cancel order")

    def near(self, p: Params) -> Params:
        """Another order."""
        return {**p, "id": p["other"]}


class Wish(_Product):
    """Put a product on the wish list."""

    name, split, difficulty, complexity = "shop_wish", "train", "easy", 1.0
    goal = "Put the {product} on the shop's wish list."

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """The wish list holds just that product."""
        return [row["product_id"] for row in matching(state, shop.WISHES)] == [str(p["id"])]

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Open the product and wish for it."""
        yield from self.open_product(hands, p)
        yield from hands.tap("Add to wish list")


TEMPLATES: tuple[Template, ...] = (
    Bookmark(),
    AskInhabitants(),
    AskMayor(),
    LargerTown(),
    ClearHistory(),
    ToCart(),
    SomeToCart(),
    PlaceOrder(),
    CheapestToCart(),
    AskPrice(),
    CancelOrder(),
    Wish(),
)
