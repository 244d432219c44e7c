"""Logs of other evaluation tools, read into the same record as our own evaluations.

Lives here: what a reading holds (`log_reading`), the check that two logs judge the same questions (`log_pairing`), the
readers (`inspect_logs`, `lm_eval_logs`, `score_tables`), bounded reading of zip files (`archive_members`) and the one
function that takes any of them (`any_evaluation`).
"""
