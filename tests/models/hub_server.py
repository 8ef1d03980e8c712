"""A tiny Hugging Face hub on this machine: enough of its API for the real client to fetch a model."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

COMMIT = "c0ffee" * 6 + "cafe"


@contextmanager
def serve_hub(repositories: dict[str, dict[str, bytes]], gated: set[str]) -> Iterator[tuple[str, list[str]]]:
    """Serve ``repositories`` (id → path → content) and yield the address and the list of files asked for.

    A repository in ``gated`` shows its list of files and refuses their content.
    """
    fetched: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def log_message(self, *_: object) -> None:
            return None

        def _send(self, status: int, content: bytes, headers: dict[str, str], body: bool) -> None:
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(content))}).items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def _answer(self, body: bool) -> None:
            parts = urlsplit(self.path).path.strip("/").split("/")
            is_api = parts[:2] == ["api", "models"]
            name = "/".join(parts[2:4] if is_api else parts[:2])
            files = repositories.get(name)
            if files is None:
                return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body)
            revision = parts[5] if is_api and len(parts) > 5 else "main"
            if revision not in ("main", COMMIT):
                return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"}, body)
            if is_api:
                sizes = {path: len(content) for path, content in files.items()}
                answer: object = {
                    "id": name,
                    "sha": COMMIT,
                    "siblings": [{"rfilename": path, "size": size} for path, size in sizes.items()],
                }
                if "tree" in parts:
                    answer = [
                        {"type": "file", "path": path, "size": size, "oid": COMMIT}
                        for path, size in sizes.items()
                    ]
                return self._send(
                    200, json.dumps(answer).encode(), {"Content-Type": "application/json"}, body
                )
            if name in gated:
                return self._send(403, b"{}", {"X-Error-Code": "GatedRepo"}, body)
            path = "/".join(parts[4:])
            if body:
                fetched.append(path)
            tag = hashlib.sha256(files[path]).hexdigest()
            return self._send(200, files[path], {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT}, body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", fetched
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
