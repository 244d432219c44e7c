"""What the worlds of talk are made of: who answers, what is known, and the rules of a bargain.

`partner.py` lets a model or a function word the lines, `guessing.py` and `knowledge.py` carry `text.guess_city` and
`text.twenty_questions`, `car_rules.py` the buyer of `text.car_dealer`. May import `game.py`.
"""
