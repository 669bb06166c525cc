"""`python cli.py …` is `outreach …`, for a checkout in which nothing is installed."""

from outreach.cli import main

if __name__ == "__main__":
    main()
