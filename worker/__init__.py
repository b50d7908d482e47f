"""The Batch job: finds the topics of one batch of firms and has an LLM name them. `python -m worker` runs it."""


class WorkerError(Exception):
    """The batch cannot go on; the text is one sentence for a person, and says what to do next."""


class TemporaryError(WorkerError):
    """The batch cannot go on now; another attempt later continues from its progress."""
