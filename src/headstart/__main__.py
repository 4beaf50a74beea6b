"""``python -m headstart`` is the ``headstart`` command."""

from typing import NoReturn

from headstart.commands.cli import main
from headstart.system.interpreter import whole_process


def run() -> NoReturn:
    """The command as a process of its own."""
    whole_process(main)


if __name__ == "__main__":
    run()
