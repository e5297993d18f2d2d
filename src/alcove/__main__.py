"""`python -m alcove` is `alcove`."""

from __future__ import annotations

from alcove.cli.main import main

if __name__ == "__main__":
    main()
