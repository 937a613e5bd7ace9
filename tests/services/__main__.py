"""Services by hand: ``python -m tests.services fetch|start|stop|kill|status|wipe [--dir DIR] [--security] [NAME...]``.

Names: kafka minio registry connect. They run on after ``start`` returns; ``status`` prints their addresses.
"""

from __future__ import annotations

import argparse
import pathlib

from .artifacts import Artifacts
from .stack import NAMES, Stack


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.services", description=__doc__)
    parser.add_argument("verb", choices=["fetch", "start", "stop", "kill", "status", "wipe"])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--dir", type=pathlib.Path, default=Artifacts().root / "stack", help="data, logs and ports")
    parser.add_argument("--security", action="store_true", help="also SASL_SSL and mTLS listeners")
    options = parser.parse_args()
    stack = Stack(options.dir, security=options.security, detached=True)
    if options.verb == "status":
        for name in NAMES:
            pid = stack.pid(name)
            print(f"{name:9} {'down' if pid is None else 'ready' if stack.answers(name) else 'starting':9} {pid or ''}")
        print(f"VQE_KAFKA_BOOTSTRAP_SERVERS={stack.bootstrap}\nVQE_REGISTRY_URL={stack.registry_url}")
        print(f"VQE_CONNECT_URL={stack.connect_url}\nVQE_S3_ENDPOINT={stack.s3_endpoint}")
        print(f"credentials: {stack.run / 'stack.json'}")
    elif options.verb == "wipe":
        stack.wipe()
    else:
        getattr(stack, options.verb)(*options.names)


if __name__ == "__main__":
    main()
