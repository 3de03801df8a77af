"""An S3 server for tests, which refuses everything while a file lies at the path it is given, and counts there.

It lets in whoever signs with the key `fake`, and nobody while a file lies at that path with `.denied` behind it.

python s3server.py PORT FILE
"""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

REFUSAL = b"<?xml version='1.0'?><Error><Code>ServiceUnavailable</Code><Message>Reduce your requests</Message></Error>"
DENIAL = b"<?xml version='1.0'?><Error><Code>InvalidAccessKeyId</Code><Message>Unknown access key</Message></Error>"


def serve(port: int, flag: Path) -> None:
    """Serve until killed; every refused request adds one byte to the file."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import run_simple

    denied = flag.with_name(f"{flag.name}.denied")
    store = DomainDispatcherApplication(create_backend_app)

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if flag.exists():
            with flag.open("ab") as count:
                count.write(b".")
            status, body = "503 Service Unavailable", REFUSAL
        elif denied.exists() or "Credential=fake/" not in environ.get("HTTP_AUTHORIZATION", ""):
            status, body = "403 Forbidden", DENIAL
        else:
            return store(environ, start_response)
        start_response(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    run_simple("127.0.0.1", port, application, threaded=True)


if __name__ == "__main__":
    serve(int(sys.argv[1]), Path(sys.argv[2]))
