"""What a phone's display holds: widgets that are laid out, their renderings as text, and a picture of them.

`widgets.py` gives the tree, `tree.py` what a policy and uiautomator read of it, `drawing.py` the image. The lowest room
of the phone: it imports nothing else of `rollwright.envs.device`.
"""
