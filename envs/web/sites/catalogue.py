"""All sites and all task templates."""

from __future__ import annotations

from . import calendar, forum, mail, shop, tasks_calendar, tasks_forum, tasks_mail, tasks_shop, tasks_wiki, wiki
from .aims import Template
from .engine import Site

SITES: dict[str, Site] = {site.name: site for site in (shop.SITE, forum.SITE, wiki.SITE, mail.SITE, calendar.SITE)}
TEMPLATES: dict[str, Template] = {
    template.id: template
    for tasks in (tasks_shop, tasks_forum, tasks_wiki, tasks_mail, tasks_calendar)
    for template in tasks.TEMPLATES
}
