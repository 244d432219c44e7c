"""What `rollwright view` serves: runs that are followed while they grow, their episodes by an index, and the server.

Lives here: the server (`page_server`) and its addresses (`page_routes`), the runs below some folders (`run_catalogue`),
one run that is followed (`followed_run`, `metric_columns`), its episodes (`episode_index`, `episode_query`,
`episode_answers`, `token_strings`), its evaluations and comparisons (`evaluation_answers`), its settings, faults and
tasks (`run_answers`), reference curves and the explanations of metrics (`reference_curves`).
"""
