"""All sites and all task templates."""

from __future__ import annotations

from . import mail, tasks_mail
from .aims import Template
from .engine import Site

SITES: dict[str, Site] = {site.name: site for site in (mail.SITE,)}
TEMPLATES: dict[str, Template] = {template.id: template for template in (*tasks_mail.TEMPLATES,)}
