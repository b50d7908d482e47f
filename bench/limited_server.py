"""`python -m bench.limited_server LIMIT`: an LLM server that answers LIMIT requests a second; it prints its port.

A request takes at least a third of a second, as on a GPU that computes 16 at once, and longer if it has to wait.
"""

import asyncio
import json
import sys
from contextlib import suppress

_LATENCY_SECONDS = 0.32

_MESSAGE = {
    "role": "assistant",
    "content": '{"name": "Freight costs", "summary": "Freight costs fell.", "coherent": true}',
}
_ANSWER = {
    "choices": [{"index": 0, "message": _MESSAGE, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 600, "completion_tokens": 30, "total_tokens": 630},
}


class _Server:
    def __init__(self, limit: float) -> None:
        self._interval = 1 / limit
        self._free_at = 0.0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, OSError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                if head.startswith(b"get"):
                    self._write(writer, {"data": [{"id": "limited"}]})
                    continue
                await reader.readexactly(int(head.split(b"content-length:")[1].split()[0]))
                await self._turn()
                self._write(writer, _ANSWER)

    async def _turn(self) -> None:
        now = asyncio.get_running_loop().time()
        self._free_at = max(self._free_at + self._interval, now + self._interval)
        await asyncio.sleep(max(_LATENCY_SECONDS, self._free_at - now))

    def _write(self, writer: asyncio.StreamWriter, document: object) -> None:
        body = json.dumps(document).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)


async def _main(limit: float) -> None:
    server = await asyncio.start_server(_Server(limit).serve, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(float(sys.argv[1])))
