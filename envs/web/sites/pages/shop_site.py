"""The shop: full-text search, product pages with options and reviews, wish list, cart, checkout, orders."""

from __future__ import annotations

import json
import random
import re
import sqlite3

from .engine import Call, Page, Redirect, Site, get, post, url
from .markup import Html, area, choose, field, form, h2, items, join, link, p, table
from .words import BRANDS, CITIES, COLOURS, FIRST_NAMES, GOODS, LAST_NAMES, MATERIALS, QUALITIES, SIZES, STREETS

SHIPPING = ("standard", "express")
SORTS = ("best match", "price up", "price down")
OPINIONS = ("Works as it should.", "Broke after a week.", "Good value.", "Not what I expected.", "Would buy it again.")
_PER_PAGE = 10
_ORDER = {"best match": "rank, product.id", "price up": "cents, product.id", "price down": "cents desc, product.id"}
_SCHEMA = """
create table product (id integer primary key, title text, category text, path text, attributes text, options text,
                      bullets text, description text, cents integer);
create virtual table found using fts5(title, body);
create table cart (id integer primary key, product_id integer, options text, quantity integer);
create table wish (product_id integer primary key);
create table orders (id integer primary key, name text, address text, shipping text);
create table line (id integer primary key, order_id integer, product_id integer, options text, quantity integer);
create table review (id integer primary key, product_id integer, author text, stars integer, text text);
"""


def fill(db: sqlite3.Connection, rng: random.Random, size: int) -> None:
    """`size` products, no two with one title; an account; some earlier orders; a review here and there."""
    user = f"{rng.choice(FIRST_NAMES)} {rng.choice(LAST_NAMES)}"
    address = f"{rng.choice(STREETS)} Street {rng.randint(1, 99)}, {rng.choice(CITIES)}"
    db.executemany("insert into meta values (?, ?)", [("user", user), ("address", address)])
    for number, (title, noun, category) in enumerate(_titles(rng, size), start=1):
        _add_product(db, rng, number, title, noun, category)
    for number in range(1, 4):
        db.execute("insert into orders values (?, ?, ?, ?)", (number, user, address, rng.choice(SHIPPING)))
        product = db.execute("select * from product where id = ?", (rng.randint(1, size),)).fetchone()
        chosen = ", ".join(rng.choice(values) for values in json.loads(product["options"]).values())
        sql = "insert into line (order_id, product_id, options, quantity) values (?, ?, ?, ?)"
        db.execute(sql, (number, product["id"], chosen, rng.randint(1, 3)))


def _titles(rng: random.Random, size: int) -> list[tuple[str, str, str]]:
    nouns = [(noun, category) for category, group in GOODS.items() for noun in group]
    seen: dict[str, tuple[str, str, str]] = {}
    while len(seen) < size:
        noun, category = rng.choice(nouns)
        title = f"{rng.choice(BRANDS)} {rng.choice(QUALITIES)} {rng.choice(MATERIALS)} {noun}"
        seen.setdefault(title, (title, noun, category))
    return list(seen.values())


def _add_product(db: sqlite3.Connection, rng: random.Random, number: int, title: str, noun: str, category: str) -> None:
    _, quality, material, _ = title.split()
    attributes = list(dict.fromkeys([quality, material, *rng.sample(QUALITIES, 2)]))
    options: dict[str, list[str]] = {}
    if rng.random() < 0.7:
        options["Colour"] = rng.sample(COLOURS, rng.randint(2, 4))
    if category == "clothing" or rng.random() < 0.3:
        options["Size"] = list(SIZES)
    bullets = " / ".join(attributes)
    description = f"A {noun} by {title.split()[0]} for {category} use, made of {material} material."
    db.execute(
        "insert into product values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(number, title, category, json.dumps([category, noun]), json.dumps(attributes), json.dumps(options)),
            *(bullets, description, rng.randint(5, 99) * 100 + rng.choice([0, 49, 95])),
        ),
    )
    db.execute("insert into found (rowid, title, body) values (?, ?, ?)", (number, title, f"{bullets} {description}"))
    if rng.random() < 0.4:
        sql = "insert into review (product_id, author, stars, text) values (?, ?, ?, ?)"
        db.execute(sql, (number, rng.choice(FIRST_NAMES), rng.randint(1, 5), rng.choice(OPINIONS)))


def money(cents: int) -> str:
    """`12.95`."""
    return f"{cents // 100}.{cents % 100:02d}"


def home(call: Call) -> Page:
    """The search and the categories."""
    links = [link(name, url("/search", category=name)) for name in GOODS]
    return Page(title="Welcome", body=join(_search_form("", "all", SORTS[0]), h2("Categories"), items(links)))


def _search_form(words: str, category: str, sort: str) -> Html:
    controls = (
        field("Search for", "q", words),
        choose("Category", "category", ["all", *GOODS], category),
        choose("Sort by", "sort", SORTS, sort),
    )
    return form("/search", *controls, submit="Search", method="get")


def search(call: Call) -> Page:
    """The products that have the words, sorted."""
    words, sort = call.text("q"), call.text("sort")
    category = call.text("category") if call.text("category") in GOODS else "all"
    sort = sort if sort in SORTS else SORTS[0]
    found = find(call, words, category, sort)
    first = min(call.number("from"), len(found))
    rows = [
        (link(row["title"], url(f"/item/{row['id']}")), money(row["cents"])) for row in found[first : first + _PER_PAGE]
    ]
    more = first + _PER_PAGE
    ask = {"q": words, "category": category, "sort": sort}
    next_page = link("Next page", url("/search", **ask, **{"from": more})) if more < len(found) else ""
    body = join(_search_form(words, category, sort), p(f"{len(found)} products"), table(rows), p(next_page))
    return Page(title="Search results", body=body)


def find(call: Call, words: str, category: str, sort: str) -> list[sqlite3.Row]:
    """Products by full-text search: those with all words, or those with any where none has all."""
    terms = [f'"{term}"' for term in re.findall(r"[a-z0-9]+", words.lower())[:20]]
    where = "" if category == "all" else "and category = :category"
    if not terms:
        sql = f"select *, 0 as rank from product where 1 {where} order by {_ORDER[sort]}"
        return call.db.execute(sql, {"category": category}).fetchall()
    sql = (
        "select product.*, found.rank as rank from found join product on product.id = found.rowid "
        f"where found match :words {where} order by {_ORDER[sort]}"
    )
    for glue in (" AND ", " OR "):
        rows = call.db.execute(sql, {"words": glue.join(terms), "category": category}).fetchall()
        if rows:
            return rows
    return []


def item(call: Call) -> Page:
    """One product with its options."""
    row = call.one("select * from product where id = ?", call.number("id"))
    options = json.loads(row["options"])
    controls = [choose(name, name.lower(), values) for name, values in options.items()]
    buy = form(
        f"/item/{row['id']}/add", *controls, field("Quantity", "quantity", "1"), submit="Add to cart", other="Buy now"
    )
    reviews = call.all("select * from review where product_id = ? order by id", row["id"])
    body = join(
        p(f"Price: {money(row['cents'])}"),
        p(f"Features: {row['bullets']}"),
        p(row["description"]),
        buy,
        form(f"/item/{row['id']}/wish", submit="Add to wish list"),
        h2("Reviews"),
        items(f"{review['stars']} stars by {review['author']}: {review['text']}" for review in reviews),
        p(link("Write a review", f"/item/{row['id']}/review")),
    )
    return Page(title=row["title"], body=body)


def add(call: Call) -> Redirect:
    """Put pieces of a product into the cart."""
    row = call.one("select * from product where id = ?", call.number("id"))
    quantity = call.number("quantity")
    back = f"/item/{row['id']}"
    if not 1 <= quantity <= 99:
        return Redirect(to=back, note="The quantity must lie between 1 and 99.")
    chosen = []
    for name, values in json.loads(row["options"]).items():
        value = call.text(name.lower())
        if value not in values:
            return Redirect(to=back, note=f"Choose the option {name}.")
        chosen.append(value)
    if call.text("other"):
        number = _place(call, call.meta("user"), call.meta("address"), SHIPPING[0], [(row["id"], chosen, quantity)])
        return Redirect(to=f"/orders/{number}", note="Order placed.")
    sql = "insert into cart (product_id, options, quantity) values (?, ?, ?)"
    call.write(sql, row["id"], ", ".join(chosen), quantity)
    return Redirect(to="/cart", note="Added to the cart.")


def _place(call: Call, name: str, address: str, shipping: str, lines: list[tuple[int, list[str], int]]) -> int:
    number = call.write("insert into orders (name, address, shipping) values (?, ?, ?)", name, address, shipping)
    for product, chosen, quantity in lines:
        sql = "insert into line (order_id, product_id, options, quantity) values (?, ?, ?, ?)"
        call.write(sql, number, product, ", ".join(chosen), quantity)
    return number


def wish(call: Call) -> Redirect:
    """Put a product on the wish list."""
    row = call.one("select id from product where id = ?", call.number("id"))
    call.write("insert or ignore into wish values (?)", row["id"])
    return Redirect(to="/wishes", note="Added to the wish list.")


def wishes(call: Call) -> Page:
    """The wish list."""
    rows = call.all("select product.* from wish join product on product.id = product_id order by product.id")
    return Page(title="Wish list", body=items(link(row["title"], f"/item/{row['id']}") for row in rows))


def review(call: Call) -> Page:
    """The form of a review."""
    row = call.one("select * from product where id = ?", call.number("id"))
    controls = (choose("Stars", "stars", ["1", "2", "3", "4", "5"], "3"), area("Review", "text"))
    return Page(
        title=f"Review of {row['title']}", body=form(f"/item/{row['id']}/review", *controls, submit="Send review")
    )


def add_review(call: Call) -> Redirect:
    """Add a review, or say what is wrong with it."""
    row = call.one("select id from product where id = ?", call.number("id"))
    stars, text = call.number("stars"), call.text("text")
    if not 1 <= stars <= 5 or not text:
        return Redirect(to=f"/item/{row['id']}/review", note="A review needs stars and a text.")
    sql = "insert into review (product_id, author, stars, text) values (?, ?, ?, ?)"
    call.write(sql, row["id"], call.meta("user").split()[0], stars, text)
    return Redirect(to=f"/item/{row['id']}", note="Thank you for the review.")


def cart(call: Call) -> Page:
    """The cart and its total."""
    lines = call.all("select cart.*, title, cents from cart join product on product.id = product_id order by cart.id")
    if not lines:
        return Page(title="Cart", body=p("The cart is empty."))
    rows = [
        (
            _line_text(line),
            money(line["cents"] * line["quantity"]),
            form(f"/cart/{line['id']}/remove", submit=f"Remove {line['title']}"),
        )
        for line in lines
    ]
    total = sum(line["cents"] * line["quantity"] for line in lines)
    return Page(title="Cart", body=join(table(rows), p(f"Total: {money(total)}"), link("Checkout", "/checkout")))


def _line_text(line: sqlite3.Row) -> str:
    chosen = f" ({line['options']})" if line["options"] else ""
    return f"{line['quantity']} x {line['title']}{chosen}"


def remove(call: Call) -> Redirect:
    """Take a line out of the cart."""
    row = call.one("select id from cart where id = ?", call.number("id"))
    call.write("delete from cart where id = ?", row["id"])
    return Redirect(to="/cart", note="Removed.")


def checkout(call: Call) -> Page:
    """The form of an order."""
    controls = (
        field("Name", "name", call.meta("user")),
        field("Address", "address", call.meta("address")),
        choose("Shipping", "shipping", SHIPPING),
    )
    return Page(title="Checkout", body=form("/checkout", *controls, submit="Place order"))


def place_order(call: Call) -> Redirect:
    """Order what is in the cart, or say what is wrong."""
    lines = call.all("select * from cart order by id")
    name, address, shipping = call.text("name"), call.text("address"), call.text("shipping")
    if not lines or not name or not address or shipping not in SHIPPING:
        problem = "A name and an address are needed." if lines else "The cart is empty."
        return Redirect(to="/checkout" if lines else "/cart", note=problem)
    number = _place(call, name, address, shipping, [(r["product_id"], [r["options"]], r["quantity"]) for r in lines])
    call.write("delete from cart")
    return Redirect(to=f"/orders/{number}", note="Order placed.")


def orders(call: Call) -> Page:
    """All orders, newest first."""
    rows = call.all("select * from orders order by id desc")
    return Page(title="Orders", body=items(link(f"Order {row['id']}", f"/orders/{row['id']}") for row in rows))


def order(call: Call) -> Page:
    """One order with its lines."""
    row = call.one("select * from orders where id = ?", call.number("id"))
    sql = "select line.*, title, cents from line join product on product.id = product_id where order_id = ?"
    lines = call.all(f"{sql} order by line.id", row["id"])
    total = sum(line["cents"] * line["quantity"] for line in lines)
    body = join(
        p(f"To: {row['name']}, {row['address']}"),
        p(f"Shipping: {row['shipping']}"),
        table((f"{line['quantity']} x {line['title']}", line["options"], money(line["cents"])) for line in lines),
        p(f"Total: {money(total)}"),
    )
    return Page(title=f"Order {row['id']}", body=body)


SITE = Site(
    name="shop",
    title="Shop",
    schema=_SCHEMA,
    fill=fill,
    routes=(
        get("/", home),
        get("/search", search),
        get("/item/<id>", item),
        post("/item/<id>/add", add),
        post("/item/<id>/wish", wish),
        get("/item/<id>/review", review),
        post("/item/<id>/review", add_review),
        get("/wishes", wishes),
        get("/cart", cart),
        post("/cart/<id>/remove", remove),
        get("/checkout", checkout),
        post("/checkout", place_order),
        get("/orders", orders),
        get("/orders/<id>", order),
    ),
    menu=(("Home", "/"), ("Wish list", "/wishes"), ("Cart", "/cart"), ("Orders", "/orders")),
    # Without the numbers of rows: in which order something was made is no part of the state.
    watched=(
        "select name, address, shipping, product_id, options, quantity from orders join line on order_id = orders.id",
        "select product_id, options, quantity from cart",
        "select product_id from wish",
        "select product_id, author, stars, text from review",
    ),
    sizes={"tiny": 6, "small": 40, "medium": 150, "large": 1000},
)
