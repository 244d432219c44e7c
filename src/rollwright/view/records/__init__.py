"""Run folders as a table that can be queried: filter, sort, group, plot, export.

Lives here: one run's values by name (`run_record`), conditions on them (`run_conditions`), groups over seeds
(`run_groups`), the table as text, CSV and JSON (`run_listing`) and curves with bands as SVG (`run_plot`).
"""
