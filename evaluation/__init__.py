"""Tools that measure the quality of topic names and the speed of vLLM. Modules with a `main` run as processes."""

from contract.exit_codes import ExitCode


class EvaluationError(Exception):
    """A measurement is impossible; the text is one sentence for the operator, and says what to do next."""

    def __init__(self, sentence: str, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(sentence)
        self.code = code
