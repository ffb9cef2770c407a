"""Options in messages, as they are written on the command line."""

import pytest

from pipeline.commands.declarations import all_commands
from pipeline.commands.printing import in_command_words


@pytest.mark.parametrize(
    ("message", "printed"),
    [
        ("State it with `level`.", "State it with --level."),
        ("`min_confidence` 40 leaves them out.", "--min-confidence 40 leaves them out."),
        ("Choose another folder with `output`.", "Choose another folder with -o."),
        ("`as_json`", "--json"),
        ("`offset` or `bands`", "--offset or --bands"),
        (
            "`reader_threads` and `classify` are no options.",
            "`reader_threads` and `classify` are no options.",
        ),
        ("50 % of `a b`", "50 % of `a b`"),
    ],
)
def test_options_become_flags(message, printed):
    assert in_command_words(message) == printed


def test_an_option_has_the_same_flag_in_every_command():
    flags: dict[str, set[str]] = {}
    for command in all_commands():
        for param in command.params:
            if param.param_type_name == "option":
                flags.setdefault(param.name, set()).add(param.opts[0])
    assert all(len(names) == 1 for names in flags.values()), flags
