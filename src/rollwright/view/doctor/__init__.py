"""What is wrong with a run, in plain words: rules over its metrics, faults and evaluations.

Lives here: what a rule looks at (`run_evidence`), what it says (`rule_findings`), the rules (`learning_rules`,
`policy_rules`, `rollout_rules`, `cost_rules`), the table of them and the diagnosis (`diagnosis`).
"""
