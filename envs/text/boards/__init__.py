"""What two games are played on, as pure functions: the layouts of `text.maze` and the engine of `text.chess_game`.

Imports nothing else of `rollwright.envs`.
"""
