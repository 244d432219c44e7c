"""ADB in both directions: a server that shows simulated phones to any client, and a backend that plays over it.

`server.py` answers by `services.py` (shells, files, uiautomator2's helper), `client.py` speaks to a phone directly or
through adb's own server, and `remote_phones.py` gives the backend `AdbBackend`. `wire.py` holds the messages of both
sides. May import the handset, the screen and `backend.py`; no task and no world.
"""
