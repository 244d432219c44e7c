"""The tasks on the sites: one file per site with its `TEMPLATES`.

`aims.py` says what a task is and when it is reached, `purchase.py` is WebShop's reward. May import `pages/` and
`scene.py` of `rollwright.envs.web`.
"""
