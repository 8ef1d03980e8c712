"""Errors meant for the person at the keyboard."""


class UserError(Exception):
    """One clear sentence for the person: what is wrong, what was expected, what to do.

    The CLI prints it and exits with status 2; a page shows it in place of a result. Anything else that
    is raised is a defect of the program.
    """
