"""The command line."""

from convsmith.cli.app import app, main

__all__ = ["app", "main"]
