"""The sites: pages over a database, one file per site with its `SITE`.

`engine.py` gives routes, forms and the database, `markup.py` the plain HTML that all pages keep to, `words.py` what is
written on them. Imports nothing else of `rollwright.envs`.
"""
