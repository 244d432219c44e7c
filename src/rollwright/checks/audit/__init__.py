"""The audit: a world and its verifier on trial before anything is trained.

`auditor.py` runs it. It plays a panel (`panel.py`) of policies whose true result is known and asks whether the verifier
agrees; `panel_checks.py`, `leakage.py`, `task_checks.py` and `identity.py` are the checks, `audit_policy.py` has the
limits, and `audit_report.py` writes what was found.
"""
