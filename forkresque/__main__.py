"""`python -m forkresque`: the command line."""

from forkresque.cli import main

if __name__ == "__main__":
    main()
