"""`python -m convsmith`."""

from convsmith.cli import main

if __name__ == "__main__":
    main()
