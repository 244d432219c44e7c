"""What is asked for in `code.synthesis`, `code.unit_tests`, `code.correction` and `code.maths`, drawn from seeds.

`specifications.py` gives families of programs, `maths_families.py` families of questions with the rules that judge
their answers; `integral_rule.py` is such a rule and runs in a box. May import the sandbox and `judging.py` of
`rollwright.envs.code`, no world.
"""
