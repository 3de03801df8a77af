"""The command line: what each command takes, and how it calls the library. No rule lives here."""

from refloom.cli.arguments import build_parser, main

__all__ = ["build_parser", "main"]
