"""What the bridges to other libraries share: foreign worlds in, ours out.

`foreign.py` tells a slip of the policy from a fault of the other side, `openenv_sessions.py` speaks to a server,
`blocking.py` turns one of our worlds into plain calls, `tool_template.py` serves chat templates with tools. May import
`game.py`.
"""
