"""Device environments: a simulated phone, and real ones over ADB."""
