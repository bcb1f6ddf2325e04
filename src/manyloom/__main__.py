"""`python -m manyloom` is the command line."""

from manyloom.cli import main

if __name__ == "__main__":
    main()
