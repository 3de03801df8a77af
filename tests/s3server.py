"""An S3 server for tests, which refuses everything while a file lies at the path it is given, and counts there.

python s3server.py PORT FILE
"""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

REFUSAL = b"<?xml version='1.0'?><Error><Code>ServiceUnavailable</Code><Message>Reduce your requests</Message></Error>"


def serve(port: int, flag: Path) -> None:
    """Serve until killed; every refused request adds one byte to the file."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import run_simple

    store = DomainDispatcherApplication(create_backend_app)

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if flag.exists():
            with flag.open("ab") as count:
                count.write(b".")
            start_response("503 Service Unavailable", [("Content-Type", "application/xml")])
            return [REFUSAL]
        return store(environ, start_response)

    run_simple("127.0.0.1", port, application, threaded=True)


if __name__ == "__main__":
    serve(int(sys.argv[1]), Path(sys.argv[2]))
