"""All sites and all task templates."""

from __future__ import annotations

from .pages import calendar_site, forum_site, mail_site, shop_site, wiki_site
from .pages.engine import Site
from .tasks import calendar_tasks, forum_tasks, mail_tasks, shop_tasks, wiki_tasks
from .tasks.aims import Template

_SITES = (shop_site, forum_site, wiki_site, mail_site, calendar_site)
_TASKS = (shop_tasks, forum_tasks, wiki_tasks, mail_tasks, calendar_tasks)
SITES: dict[str, Site] = {module.SITE.name: module.SITE for module in _SITES}
"""By name: `shop`."""
TEMPLATES: dict[str, Template] = {template.id: template for tasks in _TASKS for template in tasks.TEMPLATES}
"""By name: `shop.add_to_cart`; those of a site stand together."""
