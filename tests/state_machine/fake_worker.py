"""A fake worker that ends within a tenth of a second: it writes the results of its batch without reading a transcript.

A file in the directory `CONTROL`, named after a batch, requests a fault: `exit`, `kill` (the worker kills itself at
each attempt), `kill once`, or `hang`, which the worker replaces by `hangs` once it does.
"""

import hashlib
import os
import signal
import socket
import sys
import time
from pathlib import Path

from contract.batch import BatchProgress, Counts, Part, find_batch
from contract.layout import run_of_manifest

# moto reads the access key of a request and does not check the signature.
SIGNED = "Authorization: AWS4-HMAC-SHA256 Credential=embedded/20230101/us-east-1/s3/aws4_request"


def main() -> int:
    bucket, batch = (os.environ[name] for name in ("S3_BUCKET", "BATCH_ID"))
    manifest = os.environ["MANIFEST_S3_KEY"]
    host, _, port = os.environ["AWS_ENDPOINT_URL"].removeprefix("http://").partition(":")

    def call(method: str, key: str, body: bytes = b"") -> bytes:
        """Send a request; importing an HTTP client would take longer than everything else that this process does."""
        head = f"{method} /{bucket}/{key} HTTP/1.0\r\nHost: {host}\r\n{SIGNED}\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.create_connection((host, int(port))) as s3:
            s3.sendall(head.encode() + body)
            answer = b"".join(iter(lambda: s3.recv(1 << 16), b""))
        head, _, text = answer.partition(b"\r\n\r\n")
        assert head.split()[1] == b"200", f"{method} {key}: {answer[:200]!r}"
        return text

    request = Path(os.environ["CONTROL"], batch)
    fault = request.read_text() if request.exists() else ""
    print(f"batch {batch}: {fault or 'no fault'}")
    if fault == "kill once":
        request.unlink()
    if fault.startswith("kill"):
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "hang":
        request.write_text("hangs")
        time.sleep(3600)
    if fault == "exit":
        return 1

    run = run_of_manifest(manifest)
    line = find_batch(call("GET", manifest).splitlines(keepends=True), batch)
    key, part = run.part_key(batch, 0, "a"), b"PAR1"
    completed = {firm: Counts(topics=3, named=3, prompt_tokens=90) for firm in line.firm_ids}
    listed = {key: Part(hashlib.md5(part).hexdigest(), 3 * len(completed))}  # noqa: S324 - as S3 makes its ETags
    progress = BatchProgress(
        batch, run, len(line.firm_ids), "complete", completed, parts=listed, checkpoints=1, seconds=0.1
    )
    call("PUT", key, part)
    call("PUT", run.progress_key(batch), progress.to_json())
    return 0


if __name__ == "__main__":
    sys.exit(main())
