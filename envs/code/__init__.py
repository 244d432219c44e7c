"""Code environments: programs written and repaired in a sandbox."""
