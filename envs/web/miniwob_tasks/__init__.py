"""What `web.miniwob` is made of: the episode on a page, the sets of tasks, and a scripted teacher for each task.

May import `chromium/` and the shared modules of `rollwright.envs.web`.
"""
