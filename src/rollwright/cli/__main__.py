"""`python -m rollwright.cli`, where the command itself is not on the path."""

from rollwright.cli.commands import main

raise SystemExit(main())
