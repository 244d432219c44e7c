"""Tasks in the shop. Buying by description is paid by WebShop's reward; the others by the state of the shop."""

from __future__ import annotations

import json
import sqlite3

from ..pages.shop_site import OPINIONS, SHIPPING, money
from ..pages.words import CITIES, GOODS, STREETS
from .aims import Aim, Draw, Edit, Step, Template, fill, follow, go, pick, push, say
from .purchase import PurchaseGoal

_TO_CART = "insert into cart (product_id, options, quantity) values (?, ?, ?)"
_TO_LINES = "insert into line (order_id, product_id, options, quantity)"
_LIMITS = 4


def _reach(title: str) -> tuple[Step, ...]:
    return fill("Search for", title), push("Search"), follow(title)


def _choice(draw: Draw, product: sqlite3.Row) -> dict[str, str]:
    return {name: draw.rng.choice(values) for name, values in json.loads(product["options"]).items()}


def _picks(chosen: dict[str, str]) -> tuple[Step, ...]:
    return tuple(pick(name, value) for name, value in chosen.items())


def _told(chosen: dict[str, str]) -> str:
    return " and ".join(f"{name.lower()} {value}" for name, value in chosen.items())


def add_to_cart(draw: Draw) -> Aim:
    """Put a product without options into the cart."""
    product = draw.row("select * from product where options = '{}'")
    plan = (*_reach(product["title"]), push("Add to cart"))
    return Aim(goal=f"Add the {product['title']} to the cart.", plan=plan, edits=((_TO_CART, (product["id"], "", 1)),))


def add_with_options(draw: Draw) -> Aim:
    """Put a product into the cart with the options that are named."""
    product = draw.row("select * from product where options != '{}'")
    chosen = _choice(draw, product)
    plan = (*_reach(product["title"]), *_picks(chosen), push("Add to cart"))
    edit = (_TO_CART, (product["id"], ", ".join(chosen.values()), 1))
    return Aim(goal=f"Add the {product['title']} in {_told(chosen)} to the cart.", plan=plan, edits=(edit,))


def quantity(draw: Draw) -> Aim:
    """Put several pieces into the cart."""
    product, number = draw.row("select * from product where options = '{}'"), draw.rng.randint(2, 9)
    plan = (*_reach(product["title"]), fill("Quantity", str(number)), push("Add to cart"))
    goal = f"Add {number} pieces of the {product['title']} to the cart."
    return Aim(goal=goal, plan=plan, edits=((_TO_CART, (product["id"], "", number)),))


def price(draw: Draw) -> Aim:
    """What a product costs."""
    product = draw.row("select * from product")
    answer = money(product["cents"])
    goal = f"What does the {product['title']} cost? Answer with the price."
    return Aim(goal=goal, plan=(*_reach(product["title"]), say(answer)), answers=(answer,))


def wish(draw: Draw) -> Aim:
    """Put a product on the wish list."""
    product = draw.row("select * from product")
    plan = (*_reach(product["title"]), push("Add to wish list"))
    edit = ("insert into wish values (?)", (product["id"],))
    return Aim(goal=f"Put the {product['title']} on the wish list.", plan=plan, edits=(edit,))


def cheapest(draw: Draw) -> Aim:
    """Put the cheapest product of a category into the cart."""
    categories = [name for name in GOODS if _cheapest(draw, name)]
    category = draw.rng.choice(categories or [""])
    product = draw.row("select * from product where id = ?", _cheapest(draw, category))
    goal = f"Put the cheapest product of the category {category} on the wish list."
    plan = (pick("Category", category), pick("Sort by", "price up"), push("Search"), follow(product["title"]))
    edit = ("insert into wish values (?)", (product["id"],))
    return Aim(goal=goal, plan=(*plan, push("Add to wish list")), edits=(edit,))


def _cheapest(draw: Draw, category: str) -> int:
    """The one cheapest product of a category, or 0 where several cost the same."""
    rows = draw.all("select id, cents from product where category = ? order by cents limit 2", category)
    return rows[0]["id"] if len(rows) == 2 and rows[0]["cents"] < rows[1]["cents"] else 0


def _fill_cart(draw: Draw, number: int) -> list[sqlite3.Row]:
    products = draw.rng.sample(draw.all("select * from product where options = '{}'"), number)
    for product in products:
        draw.db.execute(_TO_CART, (product["id"], "", draw.rng.randint(1, 3)))
    return products


def remove(draw: Draw) -> Aim:
    """Take one of two lines out of the cart."""
    if len(draw.all("select 1 from product where options = '{}'")) < 2:
        raise LookupError("too few products without options")
    unwanted = draw.rng.choice(_fill_cart(draw, 2))
    edit = ("delete from cart where product_id = ?", (unwanted["id"],))
    plan = (follow("Cart"), push(f"Remove {unwanted['title']}"))
    return Aim(goal=f"Remove the {unwanted['title']} from the cart.", plan=plan, edits=(edit,))


def checkout(draw: Draw) -> Aim:
    """Order what is in the cart."""
    draw.row("select 1 from product where options = '{}'")
    _fill_cart(draw, 1)
    shipping = draw.rng.choice(SHIPPING)
    address = f"{draw.rng.choice(STREETS)} Street {draw.rng.randint(1, 99)}, {draw.rng.choice(CITIES)}"
    plan = (
        follow("Cart"),
        follow("Checkout"),
        fill("Address", address),
        pick("Shipping", shipping),
        push("Place order"),
    )
    edits: tuple[Edit, ...] = (
        ("insert into orders values (99, ?, ?, ?)", (draw.meta("user"), address, shipping)),
        (f"{_TO_LINES} select 99, product_id, options, quantity from cart", ()),
        ("delete from cart", ()),
    )
    return Aim(goal=f"Order what is in the cart with {shipping} shipping to {address}.", plan=plan, edits=edits)


def review(draw: Draw) -> Aim:
    """Review a product with stars and a text."""
    product, stars, text = draw.row("select * from product"), draw.rng.randint(1, 5), draw.rng.choice(OPINIONS)
    goal = f'Review the {product["title"]} with {stars} stars and the text "{text}"'
    plan = (*_reach(product["title"]), follow("Write a review"), pick("Stars", str(stars)), fill("Review", text))
    sql = "insert into review (product_id, author, stars, text) values (?, ?, ?, ?)"
    edit = (sql, (product["id"], draw.meta("user").split()[0], stars, text))
    return Aim(goal=goal, plan=(*plan, push("Send review")), edits=(edit,))


def order_total(draw: Draw) -> Aim:
    """What an order has cost in all."""
    order = draw.row("select * from orders")["id"]
    rows = draw.all(
        "select cents, quantity from line join product on product.id = product_id where order_id = ?", order
    )
    answer = money(sum(row["cents"] * row["quantity"] for row in rows))
    goal = f"What was the total of order {order}? Answer with the amount."
    return Aim(goal=goal, plan=(follow("Orders"), follow(f"Order {order}"), say(answer)), answers=(answer,))


def buy(draw: Draw) -> Aim:
    """By attributes and price alone."""
    return _purchase(draw, draw.row("select * from product where options = '{}'"), attributes=2)


def buy_options(draw: Draw) -> Aim:
    """With options besides."""
    return _purchase(draw, draw.row("select * from product where options like '%Colour%'"), attributes=1)


def _purchase(draw: Draw, product: sqlite3.Row, *, attributes: int) -> Aim:
    chosen, noun = _choice(draw, product), json.loads(product["path"])[1]
    wanted = draw.rng.sample(json.loads(product["attributes"]), attributes)
    limit = _limit(draw, product["cents"] / 100)
    ending = f" in {_told(chosen)}" if chosen else ""
    goal = f"Buy a {' and '.join(wanted)} {noun}{ending}, price lower than {limit:.2f}."
    plan = (*_reach(product["title"]), *_picks(chosen), push("Buy now"))
    purchase = PurchaseGoal(
        query=product["category"],
        title=product["title"],
        categories=tuple(json.loads(product["path"])),
        attributes=tuple(wanted),
        options=tuple(chosen.values()),
        limit=limit,
    )
    return Aim(goal=goal, plan=plan, purchase=purchase)


def _limit(draw: Draw, price: float) -> float:
    """The higher one of two of the next four multiples of 10 above the price, as WebShop draws it."""
    first = int(price // 10) + 1
    return 10.0 * max(draw.rng.sample(range(first, first + _LIMITS), 2))


def reorder(draw: Draw) -> Aim:
    """Put into the cart what an order had."""
    line = draw.row("select line.*, title from line join product on product.id = product_id where line.options = ''")
    edit = (_TO_CART, (line["product_id"], "", line["quantity"]))
    goal = f"Add to the cart what order {line['order_id']} had, in the same quantity."
    plan = (follow("Orders"), follow(f"Order {line['order_id']}"), go("/"), *_reach(line["title"]))
    return Aim(goal=goal, plan=(*plan, fill("Quantity", str(line["quantity"])), push("Add to cart")), edits=(edit,))


TEMPLATES = (
    Template(id="shop.add_to_cart", difficulty="easy", split="train", draw=add_to_cart),
    Template(id="shop.add_with_options", difficulty="medium", split="train", draw=add_with_options),
    Template(id="shop.quantity", difficulty="medium", split="validation", draw=quantity),
    Template(id="shop.price", difficulty="easy", split="train", draw=price),
    Template(id="shop.wish", difficulty="easy", split="train", draw=wish),
    Template(id="shop.cheapest", difficulty="medium", split="test", draw=cheapest),
    Template(id="shop.remove", difficulty="easy", split="train", draw=remove),
    Template(id="shop.checkout", difficulty="medium", split="train", draw=checkout),
    Template(id="shop.review", difficulty="medium", split="validation", draw=review),
    Template(id="shop.order_total", difficulty="easy", split="test", draw=order_total),
    Template(id="shop.buy", difficulty="hard", split="train", draw=buy),
    Template(id="shop.buy_options", difficulty="hard", split="test", draw=buy_options),
    Template(id="shop.reorder", difficulty="hard", split="train", draw=reorder),
)
