"""The tasks of `device.phone`: templates that draw parameters and data, judge the phone's state, and can be solved.

`template.py` says what a template is and gives the hands of a scripted solver; one file per field of life holds
templates in its `TEMPLATES`, and `all_templates.py` collects and chooses them. May import the handset, its apps, the
screen and `backend.py`; no transport and no world.
"""
