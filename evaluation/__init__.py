"""Tools that measure the quality of topic names and the speed of vLLM. Modules with a `main` run as processes."""

# The exit codes of `ftm`, which passes them on.
FAILED = 1
USAGE = 2
NOT_FOUND = 3
DENIED = 4


class EvaluationError(Exception):
    """A measurement is impossible; the text is one sentence for the operator, and says what to do next."""

    def __init__(self, sentence: str, code: int = FAILED) -> None:
        super().__init__(sentence)
        self.code = code
