"""`python -m scheduler.cli`: the same as `bakeoff`, for a supervisor that starts its own interpreter."""

from scheduler.cli import main

if __name__ == "__main__":
    main()
