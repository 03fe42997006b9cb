"""A web server on this machine that misbehaves on request."""

import gzip
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


@dataclass
class Page:
    """One address: what lies there and how the server treats it."""

    content: bytes = b""
    etag: str | None = '"one"'
    modified: str | None = None
    ranges: bool = True
    honour_if_range: bool = True
    length: int | None = None  # what Content-Length claims; the true length where None
    headers: dict[str, str] = field(default_factory=dict)
    statuses: list[int] = field(default_factory=list)  # answers before the true one; the last one stays if `stuck`
    stuck: bool = False
    drops: list[int] = field(default_factory=list)  # bytes sent before the connection is cut, one for each request
    on_request: list = field(default_factory=list)  # called with the page before each answer
    rate: float = 0.0  # seconds between pieces of 1 KiB
    location: str | None = None
    chunked: bool = False
    login: str | None = None  # the Authorization header that it asks for


class FileServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.pages: dict[str, Page] = {}
        self.asked = defaultdict(list)  # path -> (method, headers)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"

    def put(self, path: str, content: bytes = b"", **settings) -> str:
        self.pages["/" + path] = Page(content, **settings)
        return self.url(path)

    def handle_error(self, request, client_address):
        pass  # clients that are killed in the middle


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body: bool):
        path = self.path.partition("?")[0]
        self.server.asked[path].append((self.command, dict(self.headers)))
        page = self.server.pages.get(path)
        for call in page.on_request if page else []:
            call(page)
        start = self.first_byte(page) if page else None
        if page is None:
            self.plain(404)
        elif page.login and self.headers.get("Authorization") != page.login:
            self.plain(401)
        elif page.statuses:
            self.plain(page.statuses[0] if page.stuck else page.statuses.pop(0))
        elif page.location:
            self.plain(302, Location=page.location, **page.headers)
        elif start is not None and start >= len(page.content):
            self.plain(416, **{"Content-Range": f"bytes */{len(page.content)}"})
        else:
            self.file(page, start, body)

    def file(self, page: Page, start: int | None, body: bool):
        self.send_response(200 if start is None else 206)
        if start is not None:
            self.send_header("Content-Range", f"bytes {start}-{len(page.content) - 1}/{len(page.content)}")
        for name, value in {"ETag": page.etag, "Last-Modified": page.modified, **page.headers}.items():
            if value:
                self.send_header(name, value)
        data = page.content[start or 0 :]
        if page.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(data) if page.length is None else page.length - (start or 0)))
        self.end_headers()
        if body:
            self.send(page, data)

    def first_byte(self, page: Page) -> int | None:
        asked = self.headers.get("Range")
        if not asked or not page.ranges:
            return None
        condition = self.headers.get("If-Range")
        if page.honour_if_range and condition not in {None, page.etag, page.modified}:
            return None
        return int(asked.removeprefix("bytes=").removesuffix("-"))

    def send(self, page: Page, data: bytes):
        cut = page.drops.pop(0) if page.drops else None
        sent = data if cut is None else data[:cut]
        step = 1024 if page.rate else 65536
        for at in range(0, len(sent), step):
            piece = sent[at : at + step]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if page.chunked else piece)
            time.sleep(page.rate)
        if page.chunked and cut is None:
            self.wfile.write(b"0\r\n\r\n")
        if cut is not None or page.length is not None:
            self.close_connection = True

    def plain(self, status: int, **headers: str):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def server():
    """The server; ``put`` a page on it, ``asked`` holds what clients sent."""
    found = FileServer()
    thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield found
    found.shutdown()
    found.server_close()
    thread.join()


@pytest.fixture
def zipped():
    """Compress bytes with gzip, always the same way."""
    return lambda content: gzip.compress(content, mtime=0)
