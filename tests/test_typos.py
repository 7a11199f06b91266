"""Typing errors on every command line: exit code 2 and one line that says what came."""

import argparse
from pathlib import Path

import pytest

from spectrovae.commands import main, make_parser
from spectrovae.commands.options import component
from spectrovae.tuning.__main__ import make_parser as make_sweep_parser

PARSER, SWEEP = make_parser(), make_sweep_parser("spectrovae sweep")
COMMANDS: dict[str, argparse.ArgumentParser] = {
    **next(action for action in PARSER._actions if isinstance(action, argparse._SubParsersAction)).choices,
    "sweep": SWEEP,
}


def words_before(command: str) -> list[str]:
    places = ["place"] * len(COMMANDS[command]._get_positional_actions())
    return [command, *places, *(["--output=nowhere"] if command == "sweep" else [])]


def error_of(words: list[str], capsys) -> str:
    with pytest.raises(SystemExit, match="2"):
        SWEEP.parse_args(words[1:]) if words[0] == "sweep" else PARSER.parse_args(words)
    error = capsys.readouterr().err
    assert error.startswith(f"spectrovae {words[0]}: error: ") and error.count("\n") == 1, error
    return error


def options_of(command: str) -> dict[str, argparse.Action]:
    return {name: action for name, action in COMMANDS[command]._option_string_actions.items() if len(name) > 2}


@pytest.mark.parametrize("command", COMMANDS)
def test_misspelt_options_are_named_with_what_was_meant(command, capsys):
    for name in options_of(command):
        for typo in (name + name[-1], name[:3] + name[4:5] + name[3] + name[5:]):
            if typo not in options_of(command):
                error = error_of([*words_before(command), f"{typo}=3"], capsys)
                assert f"unrecognized arguments: {typo}=3; is it --" in error


@pytest.mark.parametrize("command", COMMANDS)
def test_options_are_not_shortened(command, capsys):
    for name in options_of(command):
        assert name[:-1] in error_of([*words_before(command), name[:-1], "3"], capsys)


@pytest.mark.parametrize("command", COMMANDS)
def test_values_of_another_kind_are_named(command, capsys):
    for name, action in options_of(command).items():
        if action.choices or action.type not in (None, Path, component):
            error = error_of([*words_before(command), name, "so many"], capsys)
            assert f"argument {name}: " in error and "so many" in error


@pytest.mark.parametrize("command", COMMANDS)
def test_missing_and_left_over_words_are_named(command, capsys):
    places = COMMANDS[command]._get_positional_actions()
    if any(action.required for action in places):
        assert "the following arguments are required" in error_of([command], capsys)
    if all(action.nargs is None for action in places):
        assert "unrecognized arguments: more" in error_of([*words_before(command), "more"], capsys)


def test_misspelt_commands_are_named(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["trian", "music"])
    error = capsys.readouterr().err
    assert "invalid choice: 'trian'" in error and error.count("\n") == 1
