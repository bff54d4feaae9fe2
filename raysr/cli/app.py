"""The command line as a whole: its groups, and how a command ends."""

import sys
import traceback
from collections.abc import Sequence
from typing import Any

import typer

from raysr import __version__
from raysr.cli import (
    align,
    augment,
    check_gpu,
    data,
    evaluate,
    export,
    jobs,
    models,
    preflight,
    report,
    runs,
    speech,
)
from raysr.cli.sigterm import sigterm_as_ctrl_c
from raysr.errors import RaysrError

FAILED, REFUSED, INTERRUPTED, TERMINATED = 1, 2, 130, 143
# Typer carries a Click of its own in newer versions: this is the base of wrong command lines in either.
Misuse: type[Exception] = typer.BadParameter.__mro__[1]

app = typer.Typer(
    name="raysr",
    help="Semi-supervised speech recognition on Ray: label, train, serve.\n\n"
    "Start with `raysr demo`. For your own audio: `raysr data import`, `raysr ipl`, `raysr serve`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        print(f"raysr {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: bool = typer.Option(False, "--debug", help="Show the whole traceback of an error."),
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and leave."
    ),
) -> None:
    """Take what every command takes."""


for group in (
    runs,
    jobs,
    data,
    models,
    export,
    speech,
    align,
    augment,
    evaluate,
    report,
    preflight,
    check_gpu,
):
    group.register(app)


def main(command: Sequence[str] = ()) -> None:
    """Run ``command`` with this process's arguments after it, and leave with its exit code."""
    raise SystemExit(run([*command, *sys.argv[1:]]))


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code: 0 done, 2 refused with one line, 130 Ctrl-C, 143 SIGTERM."""
    with sigterm_as_ctrl_c() as sigterm:
        code = _run(arguments)
    return TERMINATED if sigterm.came else code


def _run(arguments: Sequence[str]) -> int:
    debug = "--debug" in arguments
    try:
        code = app([a for a in arguments if a != "--debug"], prog_name="raysr", standalone_mode=False)
    except Misuse as error:
        return _misused(error, debug)
    except RaysrError as error:
        return _fail(str(error), error, debug, REFUSED)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has left: nobody to tell
        return FAILED
    except OSError as error:
        return _fail(_system_error(error), error, debug, REFUSED)
    except Exception as error:
        advice = "this is a bug; run again with --debug for the traceback and please report it"
        return _fail(f"{type(error).__name__}: {error}; {advice}", error, debug, FAILED)
    if code == INTERRUPTED:
        print("stopped; run the same command to resume", file=sys.stderr)
    return code if isinstance(code, int) else 0


def _misused(error: Any, debug: bool) -> int:
    """Tell what is wrong with the command line; a group without its command has shown its help instead."""
    message = error.format_message()
    return _fail(message, error, debug, REFUSED) if message else REFUSED


def _fail(message: str, error: BaseException, debug: bool, code: int) -> int:
    if debug:
        traceback.print_exception(error)
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return code


def _system_error(error: OSError) -> str:
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename else reason
