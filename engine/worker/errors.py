"""The errors of the worker: those that end the program, and those that answer one request."""


class CannotServe(Exception):
    """Ends the program: says what happened, why, and what the reader can do about it."""

    def __init__(self, *, what: str, why: str, do: str, exit_code: int = 2) -> None:
        super().__init__(f"{what}: {why}. {do}.")
        self.exit_code = exit_code


class RequestRefused(Exception):
    """Answers one request, in the shape of OpenAI's errors."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.message, self.status, self.kind, self.param, self.code = (
            message,
            status,
            kind,
            param,
            code,
        )

    def body(self) -> dict[str, object]:
        return {
            "error": {
                "message": self.message,
                "type": self.kind,
                "param": self.param,
                "code": self.code,
            }
        }
