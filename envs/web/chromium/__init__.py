"""A real Chromium: processes that nothing outlives, pages with deadlines, the scripts of ours that run in them.

`browser_pool.BrowserPool` lends pages, `page.WebPage` is one, `page.page_scripts` reads the JavaScript files here.
Imports nothing else of `rollwright.envs`.
"""
