"""An S3 that holds nothing but names, and lists them as fast as Python can: for LIST alone."""

import asyncio
import subprocess
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import quote
from xml.sax.saxutils import escape

from aiohttp import web

_OBJECT = (
    "<Contents><Key>{}</Key><LastModified>2026-11-27T10:00:00.000Z</LastModified>"
    "<ETag>&quot;d41d8cd98f00b204e9800998ecf8427e&quot;</ETag><Size>123456</Size>"
    "<StorageClass>STANDARD</StorageClass></Contents>"
)


@contextmanager
def list_server(names: Path, delay_s: float = 0.0, page: int = 1000) -> Iterator[str]:
    """A process of its own that answers after a while; its URL.

    Args:
        names: a file with a key in each line, sorted.
        page: keys in an answer.
    """
    command = [sys.executable, "-m", __name__, str(names), str(delay_s), str(page)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


async def _answer(
    keys: list[str], delay_s: float, page: int, request: web.BaseRequest
) -> web.Response:
    asked = request.query
    after = asked.get("continuation-token") or asked.get("start-after", "")
    first = max(bisect_right(keys, after), bisect_left(keys, asked.get("prefix", "")))
    end = bisect_left(keys, asked.get("prefix", "") + "\U0010ffff")
    found = keys[first : min(first + page, end)]
    is_cut = first + page < end
    token = f"<NextContinuationToken>{escape(found[-1])}</NextContinuationToken>" if is_cut else ""
    objects = "".join(_OBJECT.format(quote(key)) for key in found)
    await asyncio.sleep(delay_s)
    return web.Response(
        text="<ListBucketResult><EncodingType>url</EncodingType>"
        f"<IsTruncated>{str(is_cut).lower()}</IsTruncated>{token}{objects}</ListBucketResult>",
        content_type="application/xml",
    )


async def _serve(keys: list[str], delay_s: float, page: int) -> None:
    runner = web.ServerRunner(web.Server(partial(_answer, keys, delay_s, page)))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print("http://{}:{}".format(*runner.addresses[0][:2]), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    names, delay, page = sys.argv[1:]
    asyncio.run(_serve(Path(names).read_text().splitlines(), float(delay), int(page)))
