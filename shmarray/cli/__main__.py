"""`python -m shmarray.cli`: the command where its installed script is not on the path."""

from __future__ import annotations

from shmarray.cli.main import main

if __name__ == "__main__":
    main()
