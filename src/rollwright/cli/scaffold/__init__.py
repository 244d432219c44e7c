"""`rollwright init` and the files that it writes.

Lives here: `init_command`, and as `*.txt` a small world with its teacher, a reward, settings for SFT and GRPO, a test
and a README. In each, `my_world` stands for the name that the user chooses.
"""
