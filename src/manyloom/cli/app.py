"""The program around the verbs: which there are, the common flags, help, errors and exit codes.

A verb is a plain function in its own file; `VERBS` names it, and it is imported when it is called for.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from typer import Option
from typer.core import TyperGroup

from manyloom.cli import complain
from manyloom.cli.help import help_text, overview
from manyloom.cli.out import Out, dumps, write
from manyloom.core.errors import ManyloomError, Problem
from manyloom.core.validate import nearest


class Verb(NamedTuple):
    """A verb: its group in the overview, and where its function lies."""

    group: str
    target: str

    def load(self) -> Callable[..., int | None]:
        module, _, name = self.target.partition(":")
        return getattr(importlib.import_module(module), name)


VERBS: dict[str, Verb] = {
    "new": Verb("start", "manyloom.cli.new:new"),
    "plan": Verb("start", "manyloom.cli.plan:plan"),
    "run": Verb("start", "manyloom.cli.run:run"),
    "resume": Verb("start", "manyloom.cli.run:resume"),
    "predict": Verb("start", "manyloom.cli.predict:predict"),
    "runs": Verb("look", "manyloom.cli.look:runs"),
    "show": Verb("look", "manyloom.cli.look:show"),
    "compare": Verb("look", "manyloom.cli.compare:compare"),
    "report": Verb("look", "manyloom.cli.look:report"),
    "card": Verb("look", "manyloom.cli.look:card"),
    "baseline": Verb("measure", "manyloom.cli.baseline:baseline"),
    "sweep": Verb("measure", "manyloom.cli.sweep:sweep"),
    "doctor": Verb("federate", "manyloom.cli.doctor:doctor"),
    "psi": Verb("federate", "manyloom.cli.psi:psi"),
    "algorithms": Verb("find", "manyloom.cli.catalogue:algorithms"),
    "data": Verb("find", "manyloom.cli.catalogue:data"),
}
"""Every verb there is, in the order of the overview."""

SCHEMAS = Path(__file__).parent / "schemas"


# ---- the common flags


def _home_of(home: Path | None) -> Path:
    from manyloom.track.folder import home_of

    return home_of(home)


def common(
    json: Annotated[bool, Option("--json", help="one JSON document on standard output")] = False,
    quiet: Annotated[bool, Option("--quiet", help="one line: the name of what was made")] = False,
    plain: Annotated[bool, Option("--plain", help="no live display: a line a round")] = False,
    home: Annotated[Path | None, Option("--home", metavar="DIR", help="where runs are kept [.manyloom]")] = None,
    data_dir: Annotated[
        Path | None, Option("--data-dir", metavar="DIR", help="where files of named sources lie")
    ] = None,
    no_color: Annotated[bool, Option("--no-color", help="no colours")] = False,
    verbose: Annotated[bool, Option("-v", "--verbose", help="tracebacks with errors")] = False,
    *,
    verb: str = "",
) -> Out:
    """The flags that every verb takes."""
    given = data_dir or os.environ.get("MANYLOOM_DATA")
    return Out(verb, json, quiet, plain, verbose, _home_of(home), Path(given) if given else None, no_color)


def _command(name: str, verb: Verb) -> Any:
    """A verb as typer's command: its own arguments, then the common flags."""
    function = verb.load()
    own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
    shared = [p for p in inspect.signature(common, eval_str=True).parameters.values() if p.name != "verb"]

    def told(value: bool) -> None:
        if value:
            write(help_text(name, function, common))
            raise typer.Exit(0)

    def schema(value: bool) -> None:
        if value:
            write((SCHEMAS / f"{name}.json").read_text("utf-8").rstrip())
            raise typer.Exit(0)

    def call(**given: Any) -> int:
        out = common(**{p.name: given.pop(p.name) for p in shared}, verb=name)
        for flag in ("help", "schema"):
            given.pop(flag, None)
        return complain.guarded(out, lambda: function(out, **given) or 0)

    flag = inspect.Parameter.KEYWORD_ONLY
    extra = [
        inspect.Parameter("help", flag, default=False,
                          annotation=Annotated[bool, Option("--help", "-h", is_eager=True, callback=told)]),
        inspect.Parameter("schema", flag, default=False,
                          annotation=Annotated[bool, Option("--schema", is_eager=True, callback=schema)]),
    ]  # fmt: skip
    params = [p.replace(kind=flag) for p in [*own, *shared, *extra]]
    call.__annotations__ = {p.name: p.annotation for p in params}
    call.__signature__ = inspect.Signature(params)  # type: ignore[attr-defined]
    one = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    one.command(name, help=inspect.getdoc(function), add_help_option=False)(call)
    return typer.main.get_command(one)


class _Verbs(TyperGroup):
    """The verbs, each made when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return _command(cmd_name, VERBS[cmd_name]) if cmd_name in VERBS else None


app = typer.Typer(
    cls=_Verbs, rich_markup_mode=None, pretty_exceptions_enable=False, invoke_without_command=True,
    context_settings={"help_option_names": []},
)  # fmt: skip


@app.callback()
def _overview(
    ctx: typer.Context,
    help: Annotated[bool, Option("--help", "-h")] = False,
    version: Annotated[bool, Option("--version")] = False,
    json: Annotated[bool, Option("--json")] = False,
) -> None:
    if version:
        from manyloom._version import __version__

        write(f"manyloom {__version__}")
        raise typer.Exit(0)
    if ctx.invoked_subcommand is None or help:
        groups = {name: verb.group for name, verb in VERBS.items()}
        told = {"schema": "manyloom.overview/1", "ok": True, "verbs": list(groups), "next": ["manyloom run heart"]}
        write(dumps(told) if json else overview(groups))
        raise typer.Exit(0)


# ---- one call of the program

_FLAGS = {"--json": 0, "--quiet": 0, "--plain": 0, "--no-color": 0, "-v": 0, "--home": 1, "--data-dir": 1}


def _sorted(argv: Sequence[str]) -> list[str]:
    """Common flags before the verb go behind it: `manyloom --json runs` is `manyloom runs --json`."""
    at = 0
    while at < len(argv) and argv[at].partition("=")[0] in _FLAGS:
        at += 1 + (_FLAGS[argv[at].partition("=")[0]] if "=" not in argv[at] else 0)
    return [argv[at], *argv[:at], *argv[at + 1 :]] if at < len(argv) and argv[at][0] != "-" else list(argv)


def entry(argv: Sequence[str]) -> int:
    """One call of the program; gives its exit code."""
    args = _sorted(argv)
    out = Out(args[0] if args and args[0] in VERBS else "", json="--json" in args, verbose="-v" in args,
              no_color="--no-color" in args)  # fmt: skip
    return complain.guarded(out, lambda: _call(out, args))


def _call(out: Out, args: list[str]) -> int:
    try:
        code = typer.main.get_command(app).main(args=args, prog_name="manyloom", standalone_mode=False)
    except typer.TyperException as error:
        raise ManyloomUsage(_usage(out, args, error)) from None
    except typer.Abort:
        return 130
    return code if isinstance(code, int) else 0


class ManyloomUsage(ManyloomError):
    """The command itself can't be read: exit code 2."""

    exit_code = 2


_PLAIN = {
    "Input should be a valid integer": "must be a whole number",
    "Input should be a valid number": "must be a number",
    "Input should be greater than or equal to": "must be at least N",
    "Input should be less than or equal to": "must be at most N",
}
"""What typer says of a value, in the words of this house."""


def _usage(out: Out, args: Sequence[str], error: typer.TyperException) -> Problem:
    """What typer found wrong, in the words of this house."""
    option, param = getattr(error, "option_name", None), getattr(error, "param", None)
    if not out.verb:
        word = next((a for a in args if a[0:1] != "-"), None)
        if option is not None or word is None:
            return Problem("unknown-flag", f'"manyloom {option or " ".join(args)}" is no command',
                           mend="all verbs: manyloom")  # fmt: skip
        near = nearest(word, VERBS)
        mend = f"did you mean manyloom {near}? All verbs: manyloom" if near else "all verbs: manyloom"
        return Problem("unknown-verb", f'there is no verb "{word}"', rule=", ".join(VERBS), mend=mend)
    helped = f"manyloom {out.verb} --help"
    if type(error).__name__ == "NoSuchOption":
        flags = [p.partition(" ")[0] for p in _flags_of(out.verb)]
        near = nearest(str(option), flags)
        mend = f"did you mean {near}? All flags: {helped}" if near else f"all flags: {helped}"
        return Problem("unknown-flag", f"{out.verb} has no flag {option}", mend=mend)
    if type(error).__name__ == "MissingParameter":
        needed = getattr(param, "metavar", None) or option or "more"
        return Problem("missing-argument", f"{out.verb} needs {needed}", mend=helped)
    said = re.fullmatch(r"[Ii]nvalid value for '([^']+)': (.*?)\.?", error.format_message(), re.DOTALL)
    if said is None:
        text = error.format_message().rstrip(".")
        return Problem("bad-argument", f"can't read the command: {text[:1].lower()}{text[1:]}", mend=helped)
    what = next((words for start, words in _PLAIN.items() if said[2].startswith(start)), said[2])
    bound = re.search(r"equal to (\S+)", said[2])
    return Problem("bad-argument", f"{said[1]} {what}".replace("N", bound[1] if bound else "N"), mend=helped)


def _flags_of(verb: str) -> list[str]:
    from manyloom.cli.help import flags

    return [*flags(VERBS[verb].load()), *flags(common), "--help", "--schema"]
