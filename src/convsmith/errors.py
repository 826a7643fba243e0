"""The one exception a user's mistake raises: a sentence that says where, what was got, and what to do."""


class ConvsmithError(Exception):
    """A mistake of the user's, told in one sentence; the command line prints it and exits 1.

    >>> str(ConvsmithError("plan.json: not a plan; write one with `convsmith organize`."))
    'plan.json: not a plan; write one with `convsmith organize`.'
    """
