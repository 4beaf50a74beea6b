"""Choices that belong to a command, among those that are for the trainings it starts."""

from collections.abc import Sequence

from headstart.errors import ConfigError


def own_choices(choices: Sequence[str], names: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The command's own ``KEY=VALUE`` pairs, and the others as they are.

    Args:
        choices: as given.
        names: the command's own keys.

    Raises:
        ConfigError: something is no ``KEY=VALUE``.
    """
    own: dict[str, str] = {}
    others: list[str] = []
    for choice in choices:
        key, equals, value = choice.partition("=")
        if not equals and not choice.startswith("~"):
            raise ConfigError(f"'{choice}' is no choice; write KEY=VALUE, such as datamodule=digits")
        if key in names:
            own[key] = value
        else:
            others.append(choice)
    return own, others
