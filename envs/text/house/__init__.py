"""What `text.household` is made of: rooms and things, the rules of acting on them, words for what is seen, teachers.

`household_data.py` is the lowest, then `household_rules.py`, then the words and the teachers. May import `game.py`.
"""
