"""Small realistic sites: shop, forum, wiki, mail, calendar. `environment: web.sites`.

`world.py` builds the world, `bare.py` plays it without a browser and `envs.py` in one, `http.py` puts a site behind a
port of loopback. The sites are in `pages/`, the tasks on them in `tasks/`. May import `chromium/` and the shared
modules of `rollwright.envs.web`.
"""

from . import world

build = world.build
