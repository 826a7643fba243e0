"""Which channels of a graph are one and the same, and which can only go together."""

from convsmith.structure.channels.book import Book, Channels, Cut, Role
from convsmith.structure.channels.trace import trace

__all__ = ["Book", "Channels", "Cut", "Role", "trace"]
