"""Text worlds: mazes, games and conversations that live in memory, and bridges to the worlds of others.

Here lie the worlds, one module each with a `build`, the frame of a turn-based game (`game.py`), and the ways out to
other libraries (`to_gymnasium.py`, `to_openenv.py`, `to_trl.py`). What a world stands on lies in its room: `adapters/`,
`boards/`, `conversations/`, `house/`. A room may import `game.py` and no world.
"""
