"""One-line messages of a command line that cannot be parsed; loads nothing heavy."""

import argparse
import difflib
import inspect
import re
from collections.abc import Iterable, Sequence
from textwrap import shorten
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

OWN_WAYS = {
    "--optimizer": "The optimizer is AdamW: --model.lr, --model.weight_decay, --model.head_lr_multiplier.",
    "--lr_scheduler": "The schedule is --model.schedule poly or step, with --model.warmup, --model.power, "
    "--model.step_epochs and --model.step_factor.",
}
"""Options of Lightning's own command line, and what nailseg has in their place."""


def explain_error(verb: str, message: str, parser: argparse.ArgumentParser) -> str:
    """Makes one line from jsonargparse's message, which lists every type that it has tried."""
    message = " ".join(message.split())
    options = parser._option_string_actions
    if unknown := re.search(r"(?:unrecognized arguments: |does not accept option ')([^\s=']+)", message):
        hint = suggest(f"--{unknown[1].lstrip('-')}", options, f"nailseg {verb}")
        own = next((name for name in OWN_WAYS if unknown[1].startswith(name)), None)
        hint = OWN_WAYS.get(own, hint)
        return f"{verb}: unknown option {unknown[1]}. {hint}"
    # the following arguments are required: fit.data.csv
    if missing := re.search(r"arguments are required: (?:fit|validate|test)\.([\w.]+)", message):
        hint = " `nailseg index DIR` makes one." if missing[1] == "data.csv" else ""
        return f"{verb}: expected --{missing[1]}, found none.{hint}"
    # Problem with given value for key "model.lr": Expected a <class 'float'>. Got value: high
    wrong = re.search(r'key "([^"]+)": .*(?:Got|Given) value: (.*)', message)
    kind = wrong and getattr(options.get(f"--{wrong[1]}"), "_typehint", None)
    if wrong and kind:
        return f"{verb}: --{wrong[1]}: expected {describe_type(kind)}, found {wrong[2]}"
    return f"{verb}: {shorten(message, 300, placeholder=' …')}"


def describe_type(kind: Any) -> str:
    """Names an option's type in words: a whole number, one of a, b, a list such as '[A,B]'."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments)) if len(arguments) > 1 else str(arguments[0])
    if origin in (Union, UnionType):
        words = [describe_type(argument) for argument in arguments if argument is not type(None)]
        return " or ".join(dict.fromkeys(words))
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    if kind in words:
        return words[kind]
    return "a list such as '[A,B]'" if origin in (list, tuple, Sequence) else inspect.formatannotation(kind)


def suggest(wrong: str, known: Iterable[str], command: str) -> str:
    """Names the known word that a mistyped one is meant to be, or the command whose help lists all.

    Example:
        >>> suggest("--data.sise", ["--data.size", "--data.csv"], "nailseg fit")
        'Did you mean --data.size?'
    """
    near = difflib.get_close_matches(wrong, list(known), n=1, cutoff=0.8)
    return f"Did you mean {near[0]}?" if near else f"`{command} --help` lists all."
