"""Tasks on the forum."""

from __future__ import annotations

import sqlite3

from ..pages.words import REMARKS
from .aims import Aim, Draw, Edit, Step, Template, fill, follow, push, say

_POST = "insert into post (thread_id, author, text, votes) values (?, ?, ?, 0)"


def _to_board(draw: Draw, board: int) -> Step:
    return follow(draw.row("select name from board where id = ?", board)["name"])


def _reach(draw: Draw, t: sqlite3.Row) -> tuple[Step, ...]:
    return _to_board(draw, t["board_id"]), follow(t["title"])


def _thread(draw: Draw) -> sqlite3.Row:
    return draw.row("select * from thread")


def _posts(draw: Draw, t: sqlite3.Row) -> list[sqlite3.Row]:
    return draw.all("select * from post where thread_id = ? order by id", t["id"])


def _board_name(draw: Draw, t: sqlite3.Row) -> str:
    return str(draw.row("select name from board where id = ?", t["board_id"])["name"])


def bookmark(draw: Draw) -> Aim:
    """Bookmark a thread."""
    t = _thread(draw)
    goal = f'Bookmark the thread "{t["title"]}" on the board {_board_name(draw, t)}.'
    edit = ("insert into bookmark values (?)", (t["id"],))
    return Aim(goal=goal, plan=(*_reach(draw, t), push("Bookmark")), edits=(edit,))


def author(draw: Draw) -> Aim:
    """Who opened a thread."""
    t = _thread(draw)
    goal = f'Who opened the thread "{t["title"]}" on the board {_board_name(draw, t)}?'
    return Aim(goal=goal, plan=(_to_board(draw, t["board_id"]), say(t["author"])), answers=(t["author"],))


def reply(draw: Draw) -> Aim:
    """Reply to a thread."""
    t, text = _thread(draw), draw.rng.choice(REMARKS)
    goal = f'Reply to the thread "{t["title"]}" on the board {_board_name(draw, t)} with the text "{text}"'
    plan = (*_reach(draw, t), fill("Text", text), push("Reply"))
    return Aim(goal=goal, plan=plan, edits=((_POST, (t["id"], draw.meta("user"), text)),))


def new_thread(draw: Draw) -> Aim:
    """Open a thread on a board."""
    board, text = draw.row("select * from board"), draw.rng.choice(REMARKS)
    title = draw.rng.choice(["Hello everybody", "Spring meeting", "A small survey", "News from the north"])
    goal = f'Open a thread on the board {board["name"]} with the title "{title}" and the text "{text}"'
    plan = (follow(board["name"]), follow("New thread"), fill("Title", title), fill("Text", text), push("Post"))
    edits: tuple[Edit, ...] = (
        ("insert into thread values (999, ?, ?, ?)", (board["id"], title, draw.meta("user"))),
        (_POST, (999, draw.meta("user"), text)),
    )
    return Aim(goal=goal, plan=plan, edits=edits)


def upvote(draw: Draw) -> Aim:
    """Vote for somebody else's post."""
    t = _thread(draw)
    others = [(n, row) for n, row in enumerate(_posts(draw, t), 1) if row["author"] != draw.meta("user")]
    if not others:
        raise LookupError("all posts are the visitor's own")
    number, row = draw.rng.choice(others)
    goal = f'Upvote post #{number} of the thread "{t["title"]}" on the board {_board_name(draw, t)}.'
    edit = ("update post set votes = votes + 1 where id = ?", (row["id"],))
    return Aim(goal=goal, plan=(*_reach(draw, t), push(f"Upvote #{number}")), edits=(edit,))


def count_posts(draw: Draw) -> Aim:
    """How many posts a thread has."""
    t = _thread(draw)
    answer = str(len(_posts(draw, t)))
    goal = f'How many posts has the thread "{t["title"]}" on the board {_board_name(draw, t)}? Answer with a number.'
    return Aim(goal=goal, plan=(*_reach(draw, t), say(answer)), answers=(answer,))


def best_post(draw: Draw) -> Aim:
    """Who wrote the post with the most votes."""
    t = draw.row("select * from thread where (select count(*) from post where thread_id = thread.id) > 2")
    answer = max(_posts(draw, t), key=lambda row: row["votes"])["author"]
    goal = f'Who wrote the post with the most votes in the thread "{t["title"]}"?'
    plan = (fill("Search threads", t["title"]), push("Find"), follow(t["title"]), say(answer))
    return Aim(goal=goal, plan=plan, answers=(answer,))


def _own_post(draw: Draw) -> tuple[sqlite3.Row, int, int]:
    """A reply of the visitor's own is added to some thread: the thread, the post's number in it, its id."""
    t = _thread(draw)
    cursor = draw.db.execute(_POST, (t["id"], draw.meta("user"), draw.rng.choice(REMARKS)))
    return t, len(_posts(draw, t)), cursor.lastrowid or 0


def edit_post(draw: Draw) -> Aim:
    """Change one's own post."""
    t, number, post = _own_post(draw)
    text = f"Edited: {draw.rng.choice(REMARKS)}"
    goal = f'Change your post #{number} in the thread "{t["title"]}" on the board {_board_name(draw, t)} to "{text}"'
    plan = (*_reach(draw, t), follow(f"Edit #{number}"), fill("Text", text), push("Save"))
    return Aim(goal=goal, plan=plan, edits=(("update post set text = ? where id = ?", (text, post)),))


def delete_post(draw: Draw) -> Aim:
    """Delete one's own post."""
    t, number, post = _own_post(draw)
    goal = f'Delete your post #{number} in the thread "{t["title"]}" on the board {_board_name(draw, t)}.'
    edit = ("delete from post where id = ?", (post,))
    return Aim(goal=goal, plan=(*_reach(draw, t), push(f"Delete #{number}")), edits=(edit,))


def follow_author(draw: Draw) -> Aim:
    """Follow the person who opened a thread."""
    t = draw.row("select * from thread where author != ?", draw.meta("user"))
    goal = f'Follow the person who opened the thread "{t["title"]}" on the board {_board_name(draw, t)}.'
    edit = ("insert into followed values (?)", (t["author"],))
    return Aim(goal=goal, plan=(*_reach(draw, t), follow(t["author"]), push("Follow")), edits=(edit,))


def joined(draw: Draw) -> Aim:
    """Since when the person is a member who opened a thread."""
    t = _thread(draw)
    year = str(draw.row("select joined from person where name = ?", t["author"])["joined"])
    goal = f'Since which year is the person a member who opened the thread "{t["title"]}"?'
    plan = (fill("Search threads", t["title"]), push("Find"), follow(t["title"]), follow(t["author"]), say(year))
    return Aim(goal=goal, plan=plan, answers=(year,))


TEMPLATES = (
    Template(id="forum.bookmark", difficulty="easy", split="train", draw=bookmark),
    Template(id="forum.author", difficulty="easy", split="train", draw=author),
    Template(id="forum.reply", difficulty="medium", split="train", draw=reply),
    Template(id="forum.new_thread", difficulty="medium", split="train", draw=new_thread),
    Template(id="forum.upvote", difficulty="easy", split="train", draw=upvote),
    Template(id="forum.count_posts", difficulty="easy", split="validation", draw=count_posts),
    Template(id="forum.best_post", difficulty="hard", split="train", draw=best_post),
    Template(id="forum.edit_post", difficulty="medium", split="test", draw=edit_post),
    Template(id="forum.delete_post", difficulty="medium", split="validation", draw=delete_post),
    Template(id="forum.follow_author", difficulty="medium", split="train", draw=follow_author),
    Template(id="forum.joined", difficulty="hard", split="test", draw=joined),
)
