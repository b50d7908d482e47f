"""The Batch job: finds the topics of one batch of firms and has an LLM name them. `python -m worker` runs it."""


class WorkerError(Exception):
    """The batch cannot be completed; the text is a sentence for the operator that says what to do next."""


class TemporaryError(WorkerError):
    """The batch cannot be completed now; another attempt later continues from its progress."""
