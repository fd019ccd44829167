"""A command line from a frozen dataclass of options, through jsonargparse.

jsonargparse gives typed flags, `--config FILE` and `--print_config`. This adds what it lacks: dashes equal
underscores, a bare boolean flag means true, --no-NAME means false or 0, several values after one flag, aliases, an
encoder's recipe as defaults, and errors of one line.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from itertools import islice, takewhile
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import yaml
from jsonargparse import ArgumentParser, Namespace

from earface.core.errors import InputError, advice_for, refuse_unknown_flags, show_version
from earface.core.notices import as_flags
from earface.core.options import HelpLayout, check_options, literal_choices, range_text, to_plain
from earface.core.spellings import OLD_SWITCHES, current_name, current_options, current_value
from earface.core.text import decoded

Options = TypeVar("Options")
OWN_FLAGS = ("config", "print_config", "help", "version")  # of every command


class _Parser(ArgumentParser):
    hints: Mapping[str, Any] = {}  # set once by build_parser

    def error(self, message: str, ex: Exception | None = None) -> Any:
        raise InputError(_one_line(str(message), self.hints))

    def format_help(self, *args: Any, **kwargs: Any) -> str:
        """Flags with dashes, as the documents write them."""
        return re.sub(r"--\w+", lambda flag: flag[0].replace("_", "-"), as_flags(super().format_help(*args, **kwargs)))


def parse_options(
    options_type: type[Options],
    argv: Sequence[str] | None = None,
    *,
    prog: str,
    aliases: Mapping[str, str] | None = None,
    preset_field: str | None = None,
    presets: Mapping[str, Mapping[str, Any]] | None = None,
    layout: HelpLayout | None = None,
) -> Options:
    """Command line (default: sys.argv) to a checked `options_type`.

    presets: for a value of `preset_field`, defaults that replace the dataclass's own; flags and configuration files
    override them. layout: of the help. Raises InputError for anything unknown, of the wrong type or out of range.
    """
    aliases = aliases or {}
    arguments = normalise(sys.argv[1:] if argv is None else argv, options_type, aliases)
    if "--version" in arguments:
        show_version()
    if {"-h", "--help", "--help_all"} & set(arguments):
        short = "--help_all" not in arguments
        print(build_parser(options_type, prog, aliases, layout, short=short).format_help(), end="")
        raise SystemExit(0)
    known = [f"--{name}" for name in (*get_type_hints(options_type), *aliases, *OWN_FLAGS)]
    refuse_unknown_flags(arguments, known, f"{prog} --help{'-all' if layout else ''}")
    parser = build_parser(options_type, prog, aliases, layout)
    if preset_field and presets:
        probe = [argument for argument in arguments if not argument.startswith("--print_config")]
        chosen = _parse(parser, probe)[preset_field]
        parser.set_defaults(dict(presets.get(chosen, {})))
    options = options_type(**_parse(parser, arguments))
    check = getattr(options, "check", None)
    check() if check else check_options(options)
    placed = getattr(options, "placed", None)
    return placed() if placed else options


def build_parser(
    options_type: type,
    prog: str,
    aliases: Mapping[str, str],
    layout: HelpLayout | None = None,
    *,
    short: bool = False,
) -> ArgumentParser:
    """One typed flag a field, whose help is the field's reason and range, in the layout's groups if there is one.

    short: only the flags that most people need, for `--help`.
    """
    summary = (options_type.__doc__ or "").strip().split("\n")[0]
    fields = {field.name: field for field in dataclasses.fields(options_type)}
    in_groups = [name for names in layout.groups.values() for name in names] if layout else []
    own_first = [name for each in options_type.__mro__ for name in inspect.get_annotations(each) if name in fields]
    shown = layout.first if layout and short else dict.fromkeys((*in_groups, *own_first))
    spelling = "Dashes and underscores are the same, and a bare true/false flag means true."
    if also := [f"--{alias} = --{name}" for alias, name in aliases.items() if name in shown]:
        spelling += f" Also: {', '.join(also)}."
    parser = _Parser(prog=prog, description=summary, epilog=spelling, exit_on_error=False, allow_abbrev=False)
    group_of: dict[str, Any] = {}
    if layout is not None:
        parser.usage = f"{prog} [options]"
        text = f"show all {len(fields)} options, in groups: {', '.join(layout.groups)}"
        parser.add_argument("--help-all", action="help", help=text)
        groups = {"the options that most people need": layout.first} if short else layout.groups
        for title, names in groups.items():
            group_of |= dict.fromkeys(names, parser.add_argument_group(title))
        every: Any = parser._optionals  # what every command has comes last
        parser._action_groups = [*(each for each in parser._action_groups if each is not every), every]
    parser.add_argument("--version", action="help", help="show the project's version and exit")
    parser.add_argument("--config", action="config", help="YAML file of options; flags override it")
    parser.hints = hints = get_type_hints(options_type)
    for name in shown:
        field = fields[name]
        text = field.metadata.get("help", "")
        interval = range_text(field.metadata)
        if interval != "a number":
            text += f" ({interval})"
        target = group_of.get(name, parser)
        target.add_argument(f"--{name}", type=hints[name], default=field.default, help=text)
    return parser


def normalise(argv: Sequence[str], options_type: type, aliases: Mapping[str, str]) -> list[str]:
    """Spell every flag as its field: dashes to underscores, aliases resolved, bare booleans made true.

    A field that is a tuple takes all values up to the next flag. --no-NAME is 0 where NAME is a number of things.
    """
    hints = get_type_hints(options_type)
    counts = {field.name for field in dataclasses.fields(options_type) if _may_be_none(hints, field)}
    booleans = {name for name, hint in hints.items() if hint is bool or bool in get_args(hint)}
    tuples = {name for name, hint in hints.items() if get_origin(hint) is tuple}
    result: list[str] = []
    argv = list(argv)
    taken = 0  # arguments up to here are in the result
    for position, argument in enumerate(argv):
        if position < taken:
            continue
        if not argument.startswith("--"):
            result.append(argument)
            continue
        name, equals, value = argument[2:].partition("=")
        name = name.replace("-", "_")
        name = aliases.get(name, name)
        name = current_name(name, hints)
        following = argv[position + 1] if position + 1 < len(argv) else "--"
        bare = name.removeprefix("no_")
        if bare != name and not equals and (bare in booleans or (bare in OLD_SWITCHES and bare in hints)):
            name, equals, value = bare, "=", "false"
        if bare != name and not equals and bare in counts and name not in hints:
            name, equals, value = bare, "=", "0"
        if not equals and (name in booleans or name in OLD_SWITCHES) and following.startswith("--"):
            equals, value = "=", "true"
        if name in tuples:
            values = (
                [value] if equals else list(takewhile(lambda text: not text.startswith("--"), argv[position + 1 :]))
            )
            taken = position + 1 + (0 if equals else len(values))
            equals, value = "=", json.dumps([current_value(name, each) for each in values])
        elif not equals and not following.startswith("--"):
            taken, equals, value = position + 2, "=", following
        if equals:
            value = _current_file(value, hints) if name == "config" else current_value(name, value)
        result.append(f"--{name}{equals}{value}")
    return _files_first(result)


def _may_be_none(hints: Mapping[str, Any], field: dataclasses.Field[Any]) -> bool:
    return hints[field.name] is int and field.metadata.get("low") == 0


def _current_file(path: str, options: Collection[str]) -> str:
    """The path, or where a configuration file has another encoding, old names or values, its content, which
    jsonargparse takes instead: in today's names. Raises InputError for what is no text."""
    try:
        content = Path(path).read_bytes()
        stored = yaml.safe_load(decoded(content, Path(path)))
    except (OSError, yaml.YAMLError):
        return path  # reported when it is parsed
    if not isinstance(stored, dict):
        return path
    current = current_options(stored, options)
    return path if current == stored and _is_utf_8(content) else yaml.safe_dump(current)


def _is_utf_8(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _files_first(arguments: Sequence[str]) -> list[str]:
    """Flags override configuration files wherever these stand; jsonargparse goes by position."""
    files: list[str] = []
    flags: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument == "--config":
            files += [argument, *islice(rest, 1)]
        else:
            (files if argument.startswith("--config=") else flags).append(argument)
    return files + flags


def write_options(options: Any, path: Path) -> None:
    """The resolved options as YAML that `--config` reads back."""
    path.write_text(yaml.safe_dump(to_plain(options), sort_keys=False))


def _parse(parser: ArgumentParser, arguments: list[str]) -> dict[str, Any]:
    parsed = parser.parse_args(arguments)
    values = parsed.as_dict() if isinstance(parsed, Namespace) else dict(parsed)
    values.pop("config", None)
    return values


def _one_line(message: str, hints: Mapping[str, Any]) -> str:
    """jsonargparse's report of a value of the wrong type, in a sentence; anything else on one line."""
    key = re.search(r'[Pp]arser key "(\w+)"', message)
    value = re.search(r"(?:Got|Given) value: (.*)", message)
    if key and value and key[1] in hints:
        hint = hints[key[1]]
        choices = literal_choices(hint)
        wanted = f"choose one of {', '.join(map(str, choices))}" if choices else f"expected {_type_name(hint)}"
        return f"`{key[1]}` {value[1]}: {wanted}"
    unknown = re.search(r"Option '(\w+)' is not accepted", message)
    if unknown:
        return f"{unknown[1]}: no such option{advice_for(unknown[1], hints, '--help')}"
    lines = [line.strip(" -") for line in message.splitlines() if line.strip(" -")]
    return "; ".join(lines[:3]) + " (see --help)"


def _type_name(hint: Any) -> str:
    names = {float: "a number", int: "a whole number", bool: "true or false"}
    if get_origin(hint) is tuple:
        return "a list"
    return names.get(hint) or next((names[part] for part in get_args(hint) if part in names), str(hint))
