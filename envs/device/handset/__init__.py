"""The simulated phone itself: `simulated_phone.Phone`, which runs the apps.

Beside it lie how a phone starts (`setup.py`), what is on it before a task begins (`contents.py`), its keys, its windows
and what gets in a user's way. May import the apps and the screen; knows no task, no transport and no policy.
"""
