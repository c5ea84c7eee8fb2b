"""The talk with a shim: fields that it reads, lines that it says."""

import errno
import os
import socket
import time

ANSWER_WITHIN_S = 20.0


def packed(*words: str) -> bytes:
    """The length, then fields ended by NUL, which no argument or variable can hold."""
    fields = b"\0".join(os.fsencode(word) for word in (*words, "end"))
    return b"%d\n%s" % (len(fields), fields)


class Talk:
    """One. Raises OSError where it is gone, TimeoutError where it says nothing."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._said = b""
        self.listen_anew()

    def listen_anew(self) -> None:
        """It has all the time for what it says next."""
        self._deadline = time.monotonic() + ANSWER_WITHIN_S

    def say(self, data: bytes) -> None:
        self._in_time()
        self._connection.sendall(data)

    def line(self) -> list[str]:
        """The words of what it says next."""
        while b"\n" not in self._said:
            self._in_time()
            if not (data := self._connection.recv(8192)):
                raise OSError(errno.ECONNRESET, "somebody has ended its launcher")
            self._said += data
        line, _, self._said = self._said.partition(b"\n")
        text = line.decode("utf-8", "replace")
        return text.split(" ", 2) if text.startswith("error ") else text.split(" ")

    def _in_time(self) -> None:
        self._connection.settimeout(max(0.001, self._deadline - time.monotonic()))
