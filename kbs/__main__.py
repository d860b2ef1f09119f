"""The `kbs` program."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and leave with its exit code."""
    from kbs.cli.context import main_with  # noqa: PLC0415 - see kbs.cli.main
    from kbs.cli.main import kbs  # noqa: PLC0415 - as above

    sys.exit(main_with(kbs))


if __name__ == "__main__":
    main()
