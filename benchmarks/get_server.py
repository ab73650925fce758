"""An S3 that holds one photo under every key, and sends it as fast as Python can: for GET alone."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

ETAG = "755f85c2723bb39381c7379a604160d8"
_HEAD = (
    "HTTP/1.1 200 OK\r\n"
    "x-amz-id-2: vlR7PnpV2Ce81l0PRw6jlUpck7Jo5ZsQjryTjKlc5aLWGVHPZLj5NeC6qMa0emYBDXOo6QBU0Wo=\r\n"
    "x-amz-request-id: 4442587FB7D0A2F9\r\n"
    "Date: Fri, 27 Nov 2026 10:00:00 GMT\r\n"
    "Last-Modified: Fri, 27 Nov 2026 09:00:00 GMT\r\n"
    f'ETag: "{ETAG}"\r\n'
    "Accept-Ranges: bytes\r\n"
    "Content-Type: image/jpeg\r\n"
    "Content-Length: {}\r\n"
    "Server: AmazonS3\r\n\r\n"
)


@contextmanager
def get_server(size_bytes: int) -> Iterator[str]:
    """A process of its own that answers every GET with so many bytes; its URL."""
    command = [sys.executable, "-m", __name__, str(size_bytes)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


class _Answers(asyncio.Protocol):
    """One client's connection, which asks for the next when it has the answer."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._asked = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._asked += data
        if self._asked.endswith(b"\r\n\r\n"):
            self._asked = b""
            self._transport.write(self._answer)


async def _serve(size_bytes: int) -> None:
    answer = _HEAD.format(size_bytes).encode() + bytes(size_bytes)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Answers(answer), "127.0.0.1", 0)
    print("http://{}:{}".format(*server.sockets[0].getsockname()[:2]), flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
