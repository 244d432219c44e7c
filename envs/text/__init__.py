"""Text worlds: mazes, games and conversations that live in memory, and bridges to the worlds of others.

Here lie the worlds, one module each with a `build`, and the frame of a turn-based game (`game.py`). What a world stands
on lies in its room: `adapters/` (with the ways out to other libraries: `to_gymnasium`, `to_openenv`, `to_trl`),
`boards/`, `conversations/`, `house/`. A room may import `game.py` and no world.
"""
