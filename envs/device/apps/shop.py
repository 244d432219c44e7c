"""Shop: search, sort and filter products, a cart, check-out, orders and a wish list. Prices are in cents."""

from __future__ import annotations

from ..screen import widgets as w
from .app import App, Handler, Ui

PRODUCTS, CART, ORDERS = "content://shop/products", "content://shop/cart", "content://shop/orders"
LINES, WISHES = "content://shop/order_lines", "content://shop/wishlist"
SCHEMA = """
CREATE TABLE products (_id INTEGER PRIMARY KEY, name TEXT NOT NULL, category TEXT NOT NULL,
  price_cents INTEGER NOT NULL, rating REAL NOT NULL DEFAULT 4.0, description TEXT NOT NULL DEFAULT '');
CREATE TABLE cart (_id INTEGER PRIMARY KEY, product_id INTEGER NOT NULL, quantity INTEGER NOT NULL DEFAULT 1);
CREATE TABLE orders (_id INTEGER PRIMARY KEY, total_cents INTEGER NOT NULL, address TEXT NOT NULL DEFAULT '',
  payment TEXT NOT NULL DEFAULT '', status TEXT NOT NULL DEFAULT 'Placed', date_ms INTEGER NOT NULL DEFAULT 0);
CREATE TABLE order_lines (_id INTEGER PRIMARY KEY, order_id INTEGER NOT NULL, product_id INTEGER NOT NULL,
  quantity INTEGER NOT NULL);
CREATE TABLE wishlist (_id INTEGER PRIMARY KEY, product_id INTEGER NOT NULL);
"""
CATEGORIES = ("All", "Books", "Kitchen", "Garden", "Toys", "Office")
SORTS = {"Name": "name, _id", "Price: low to high": "price_cents, _id", "Rating": "rating DESC, _id"}
PAYMENTS = ("Card", "Invoice", "On delivery")
_MAX_QUANTITY = 99


def money(cents: int) -> str:
    """Cents as dollars: `$12.49`."""
    return f"${cents // 100}.{cents % 100:02}"


def main(ui: Ui) -> w.Widget:
    """The products of a category, sorted, narrowed by a search."""
    category, order = ui.state.get("category", "All"), ui.state.get("sort", "Name")
    only = "" if category == "All" else " AND category = ?"
    args = [f"%{ui.value('search')}%"] + ([] if category == "All" else [category])
    sql = f"SELECT _id, name, price_cents, rating FROM products WHERE name LIKE ?{only} ORDER BY {SORTS[order]}"
    rows = [
        w.item(name, detail=f"{money(cents)}, rated {rating}", on_tap=_opens(ui, key))
        for key, name, cents, rating in ui.query(sql, *args)
    ]
    count = ui.query("SELECT coalesce(sum(quantity), 0) FROM cart")[0][0]
    return w.screen(
        w.toolbar(
            "Shop",
            w.button(f"Cart ({count})", lambda: ui.go("cart"), rid="cart"),
            w.button("Orders", lambda: ui.go("orders"), rid="orders"),
            w.icon("Wish list", lambda: ui.go("wishes"), rid="wishes"),
        ),
        ui.field("search", "Search products"),
        w.row(
            ui.spinner("category", "Category", category, CATEGORIES, lambda name: ui.state.update(category=name)),
            ui.spinner("sort", "Sort by", order, list(SORTS), lambda name: ui.state.update(sort=name)),
        ),
        w.scroll("list", *(rows or [w.label("No products", rid="empty")])),
    )


def _opens(ui: Ui, key: int) -> Handler:
    return lambda: ui.go("product", id=key)


def product(ui: Ui) -> w.Widget:
    """One product with its quantity."""
    key = ui.args["id"]
    found = ui.one("SELECT name, category, price_cents, rating, description FROM products WHERE _id = ?", key)
    if found is None:
        return w.screen(w.toolbar("Product"), w.label("This product is gone.", rid="empty"))
    name, category, cents, rating, text = found
    number = ui.state.get("quantity", 1)
    wished = ui.one("SELECT _id FROM wishlist WHERE product_id = ?", key)

    def more(change: int) -> Handler:
        return lambda: ui.state.update(quantity=min(max(number + change, 1), _MAX_QUANTITY))

    def add() -> None:
        _add_to_cart(ui, key, number)
        ui.say(f"{number} added to the cart")

    def wish() -> None:
        if wished:
            ui.execute("DELETE FROM wishlist WHERE product_id = ?", key)
        else:
            ui.execute("INSERT INTO wishlist (product_id) VALUES (?)", key)

    return w.screen(
        w.toolbar(
            name,
            w.icon("Remove from wish list" if wished else "Add to wish list", wish, rid="wish"),
            w.button("Cart", lambda: ui.go("cart"), rid="cart"),
        ),
        w.label(money(cents), style="title", rid="price"),
        w.label(f"{category}, rated {rating}"),
        w.label(text or "No description"),
        w.row(
            w.icon("Fewer", more(-1), rid="fewer"),
            w.label(f"Quantity: {number}", rid="quantity", weight=2),
            w.icon("More", more(1), rid="more"),
        ),
        w.button("Add to cart", add, rid="add_to_cart"),
    )


def _add_to_cart(ui: Ui, key: int, number: int) -> None:
    # One line for each product: more of it raises the number.
    line = ui.one("SELECT _id, quantity FROM cart WHERE product_id = ?", key)
    if line is None:
        ui.execute("INSERT INTO cart (product_id, quantity) VALUES (?, ?)", key, number)
    else:
        ui.execute("UPDATE cart SET quantity = ? WHERE _id = ?", min(line[1] + number, _MAX_QUANTITY), line[0])


_IN_CART = """
SELECT c._id, p.name, p.price_cents, c.quantity, p._id FROM cart c JOIN products p ON p._id = c.product_id
ORDER BY c._id
"""


def cart(ui: Ui) -> w.Widget:
    """The cart and its total."""
    lines = ui.query(_IN_CART)
    total = sum(cents * number for _, _, cents, number, _ in lines)
    rows = []
    for key, name, cents, number, _ in lines:
        less = w.icon(f"Fewer {name}", _changes(ui, key, number - 1), rid="fewer")
        more = w.icon(f"More {name}", _changes(ui, key, number + 1), rid="more")
        rows.append(w.item(name, detail=f"{number} x {money(cents)}", extra=[less, more]))
    return w.screen(
        w.toolbar("Cart"),
        w.label(f"Total: {money(total)}", style="title", rid="total"),
        w.button("Check out", lambda: ui.go("checkout"), rid="checkout", enabled=bool(lines)),
        w.scroll("list", *(rows or [w.label("The cart is empty", rid="empty")])),
    )


def _changes(ui: Ui, key: int, number: int) -> Handler:
    def act() -> None:
        if number < 1:
            ui.execute("DELETE FROM cart WHERE _id = ?", key)
        else:
            ui.execute("UPDATE cart SET quantity = ? WHERE _id = ?", min(number, _MAX_QUANTITY), key)

    return act


def checkout(ui: Ui) -> w.Widget:
    """The form of an order."""
    payment = ui.state.get("payment", PAYMENTS[0])
    lines = ui.query(_IN_CART)
    total = sum(cents * number for _, _, cents, number, _ in lines)

    def place() -> None:
        address = ui.value("address").strip()
        if not address or not lines:
            return ui.say("An order needs an address")
        sql = "INSERT INTO orders (total_cents, address, payment, date_ms) VALUES (?, ?, ?, ?)"
        made = ui.execute(sql, total, address, payment, ui.phone.now_ms)
        for _, _, _, number, item in lines:
            ui.execute("INSERT INTO order_lines (order_id, product_id, quantity) VALUES (?, ?, ?)", made, item, number)
        ui.execute("DELETE FROM cart")
        # Past the form and the cart, so that BACK does not lead to what was ordered already.
        ui.back(2)
        return ui.go("order", id=made)

    return w.screen(
        w.toolbar("Check out"),
        w.label(f"Total: {money(total)}", rid="total"),
        ui.field("address", "Delivery address"),
        ui.spinner("payment", "Payment", payment, PAYMENTS, lambda name: ui.state.update(payment=name)),
        w.button("Place order", place, rid="place_order"),
    )


def orders(ui: Ui) -> w.Widget:
    """All orders, newest first."""
    found = ui.query("SELECT _id, total_cents, status FROM orders ORDER BY _id DESC LIMIT 60")
    rows = [
        w.item(f"Order {key}", detail=f"{money(cents)}, {status}", on_tap=_shows(ui, key))
        for key, cents, status in found
    ]
    return w.screen(w.toolbar("Orders"), w.scroll("list", *(rows or [w.label("No orders", rid="empty")])))


def _shows(ui: Ui, key: int) -> Handler:
    return lambda: ui.go("order", id=key)


def order(ui: Ui) -> w.Widget:
    """One order with its lines."""
    key = ui.args["id"]
    found = ui.one("SELECT total_cents, address, payment, status FROM orders WHERE _id = ?", key)
    if found is None:
        return w.screen(w.toolbar("Order"), w.label("There is no such order.", rid="empty"))
    cents, address, payment, status = found

    def cancel() -> None:
        ui.execute("UPDATE orders SET status = 'Cancelled' WHERE _id = ?", key)

    lines = ui.query(
        "SELECT p.name, l.quantity FROM order_lines l JOIN products p ON p._id = l.product_id WHERE l.order_id = ?", key
    )
    return w.screen(
        w.toolbar(f"Order {key}"),
        w.item(money(cents), detail="Total"),
        w.item(address, detail=f"Pay by: {payment}"),
        w.item(status, detail="Status"),
        w.button("Cancel order", cancel, rid="cancel", enabled=status == "Placed"),
        w.scroll("list", *[w.label(f"{number} x {name}") for name, number in lines]),
    )


def wishes(ui: Ui) -> w.Widget:
    """The wish list."""
    found = ui.query("SELECT p._id, p.name FROM wishlist v JOIN products p ON p._id = v.product_id ORDER BY v._id")
    rows = [w.item(name, on_tap=_opens(ui, key)) for key, name in found]
    return w.screen(w.toolbar("Wish list"), w.scroll("list", *(rows or [w.label("No wishes yet", rid="empty")])))


APP = App(
    name="Shop",
    package="org.rollwright.shop",
    screens={
        "main": main,
        "product": product,
        "cart": cart,
        "checkout": checkout,
        "orders": orders,
        "order": order,
        "wishes": wishes,
    },
    schema=SCHEMA,
    providers={PRODUCTS: "products", CART: "cart", ORDERS: "orders", LINES: "order_lines", WISHES: "wishlist"},
    colour="#e8710a",
)
