"""`python -m shmarray`: the command line."""

from shmarray.cli.main import main

if __name__ == "__main__":
    main()
