"""Environments, one module each with a `build`; import them as `rollwright.envs`.

Four families that do not know one another: `code`, `device`, `text`, `web`. They may import the core's contracts and
what the core offers to worlds, never rewards or recipes. A module two names deep that defines `build` is a world that a
configuration can name (`text.maze`); what worlds are made of lies deeper, or defines no `build`.
"""

if __name__ != "rollwright.envs":
    raise ImportError("import this package as `rollwright.envs`, not `envs`; run `pip install -e .` first")
