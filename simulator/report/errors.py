"""What is wrong with what a report should be made of."""


class ReportError(ValueError):
    """A log, table or folder that no report can be made of; the message names it, the rule and what
    to do.
    """
