"""Rollwright: post-training of language agents with multi-turn reinforcement learning.

Importing this package is quick on purpose: it loads no torch, reads no file and no environment variable. Import what
you need from its modules, for example `from rollwright.contracts.record import Trajectory`.
"""

__version__ = "0.1.0"
__all__ = ["__version__"]
