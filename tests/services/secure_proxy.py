"""TLS and a password before a service that has neither, as a company's gateway puts them there."""

from __future__ import annotations

import base64
import http.client
import http.server
import ssl
import threading
import urllib.parse

from .security import Security


class SecureProxy:
    """Passes requests on to a service when they come over TLS with the right user and password; else 401.

    ``url``: its address, with the certificate of ``security``; ``passed``, ``refused``: requests so far.
    """

    def __init__(self, service_url: str, security: Security):
        target = urllib.parse.urlsplit(service_url)
        wanted = "Basic " + base64.b64encode(f"{security.user}:{security.password}".encode()).decode()
        self.passed = self.refused = 0
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.headers.get("Authorization") != wanted:
                    proxy.refused += 1
                    self._answer(401, "text/plain", b"who are you?")
                    return
                proxy.passed += 1
                kept = {k: v for k, v in self.headers.items() if k in ("Content-Type", "Accept")}
                service = http.client.HTTPConnection(target.hostname, target.port, timeout=30)
                try:
                    service.request(self.command, self.path, body, kept)
                    answer = service.getresponse()
                    self._answer(answer.status, answer.headers.get("Content-Type", ""), answer.read())
                finally:
                    service.close()

            do_GET = do_POST = do_PUT = do_DELETE = _pass_on

            def _answer(self, status: int, kind: str, content: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None: ...

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(security.server_pem)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://localhost:{self._server.server_port}{target.path}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> SecureProxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
