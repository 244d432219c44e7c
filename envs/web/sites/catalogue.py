"""All sites and all task templates."""

from __future__ import annotations

from .pages import calendar_site as calendar
from .pages import forum_site as forum
from .pages import mail_site as mail
from .pages import shop_site as shop
from .pages import wiki_site as wiki
from .pages.engine import Site
from .tasks import calendar_tasks as tasks_calendar
from .tasks import forum_tasks as tasks_forum
from .tasks import mail_tasks as tasks_mail
from .tasks import shop_tasks as tasks_shop
from .tasks import wiki_tasks as tasks_wiki
from .tasks.aims import Template

SITES: dict[str, Site] = {site.name: site for site in (shop.SITE, forum.SITE, wiki.SITE, mail.SITE, calendar.SITE)}
TEMPLATES: dict[str, Template] = {
    template.id: template
    for tasks in (tasks_shop, tasks_forum, tasks_wiki, tasks_mail, tasks_calendar)
    for template in tasks.TEMPLATES
}
