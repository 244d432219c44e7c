"""Small realistic sites: shop, forum, wiki, mail, calendar. `environment: web.sites`."""

from . import world

build = world.build
