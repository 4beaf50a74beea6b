"""``python -m headstart`` is the ``headstart`` command."""

from typing import NoReturn

from headstart.system.interpreter import whole_process


def run() -> NoReturn:
    """The command as a process of its own."""
    whole_process("headstart.commands.cli:main")


if __name__ == "__main__":
    run()
