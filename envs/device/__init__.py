"""Device worlds: a simulated phone, and real ones over ADB.

Here lie the world `device.phone` (`phone.py` builds it, `phone_world.py` plays it), what a policy can do
(`phone_actions.py`), what drives a phone (`backend.py`), and the readers of recorded episodes (`logs.py`,
`datasets.py`). The rooms in the order of their imports: `screen/`, `apps/`, `handset/`, then `backend.py`, then `adb/`
and `templates/`, then the world.
"""
