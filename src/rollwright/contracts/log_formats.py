"""The names of the formats of foreign logs and tasks: strings alone, so that `rollwright --help` loads nothing."""

FORMATS = {
    "messages": "rollwright.store.importers.chat_logs:OPENAI",
    "sharegpt": "rollwright.store.importers.chat_logs:SHAREGPT_FORMAT",
    "lmrl-gym": "rollwright.store.importers.lmrl_gym:LMRL_GYM",
    "gymnasium": "rollwright.store.importers.env_logs:GYMNASIUM",
    "openenv": "rollwright.store.importers.env_logs:OPENENV",
    "aitw": "rollwright.envs.device.logs:AITW",
    "android-control": "rollwright.envs.device.logs:ANDROID_CONTROL",
    "mbpp": "rollwright.store.importers.code_tasks:MBPP",
    "humaneval": "rollwright.store.importers.code_tasks:HUMANEVAL",
    "swe-bench": "rollwright.store.importers.repair_tasks:SWE_BENCH",
}
"""Name of each format -> where its `Format` stands; looked up, so that only the one that is used is loaded."""
