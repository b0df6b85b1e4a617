"""A file from the web: streamed to disk, taken up again where the connection broke, never from a weaker place.

    curl -fL --retry 3 -C - -o FILE URL

RFC 9110: redirects (15.4), ranges (14), entity tags (8.8.3). man 1 curl
"""

from __future__ import annotations

import time

from ..errors import ArchiveError, ImageNotFoundError, StorageError, UnsupportedError
from ..unistd import os
from .progress import Progress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    import urllib3

_ATTEMPTS = 4
_REDIRECTS = 10
_PIECE = 256 << 10  # bytes
_CONNECT, _SILENCE = 15.0, 60.0  # seconds
_LATER = (408, 425, 429, 500, 502, 503, 504)  # statuses after which trying again makes sense


class _Broken(Exception):
    """This attempt failed in a way in which the next may not."""


class _Partial:
    """What is on disk of a download. tag: the strong entity tag of it, "" when there is none to take it up by."""

    __slots__ = ("file", "have", "progress", "tag")

    def __init__(self, file: int, progress: Progress) -> None:
        self.file = file
        self.have = 0
        self.tag = ""
        self.progress = progress

    def restart(self) -> None:
        """Forget what came so far."""
        os.ftruncate(self.file, 0)
        os.lseek(self.file, 0, os.SEEK_SET)
        self.progress.advance(-self.have)
        self.have = 0
        self.tag = ""


def download(url: str, path: str, pause: float = 1.0) -> None:
    """Fetch `url` into the new file `path`.

    pause: seconds before the second attempt, twice as many before each further one. Raises ImageNotFoundError when the
    server doesn't have it, ArchiveError when it doesn't come whole, StorageError when it can't be written. Name and
    password in the URL are sent to its own server only; a redirect from https to http is refused.
    """
    try:
        import urllib3
    except ImportError:
        raise UnsupportedError("nothing can be downloaded", "install the Python package urllib3") from None
    shown = without_secrets(url)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with Progress(shown, 0) as progress:
            partial = _Partial(file, progress)
            for attempt in range(1, _ATTEMPTS + 1):
                try:
                    return _attempt(url, partial, shown)
                except (_Broken, urllib3.exceptions.HTTPError) as error:
                    if attempt == _ATTEMPTS or isinstance(error, urllib3.exceptions.LocationValueError):
                        raise ArchiveError(f"can't download {shown}: {_reason(error)}", "try again later") from None
                time.sleep(pause * 2 ** (attempt - 1))
    except OSError as error:
        raise StorageError(f"can't write the download to {path}: {error.strerror or error}") from None
    finally:
        os.close(file)


def without_secrets(url: str) -> str:
    """The URL as it may be shown: without name, password and query."""
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path.partition('?')[0]}"


def _attempt(url: str, partial: _Partial, shown: str) -> None:
    headers = {"Accept-Encoding": "identity", "User-Agent": "tarbox"}
    if partial.have and partial.tag:
        headers |= {"Range": f"bytes={partial.have}-", "If-Range": partial.tag}
    response = _follow(url, headers, shown)
    try:
        if response.status in (200, 206):
            _receive(response, partial, shown)
        elif response.status in _LATER:
            raise _Broken(f"the server says {response.status}")
        elif response.status == 416:
            partial.restart()
            raise _Broken("the file changed on the server")
        elif response.status in (401, 403):
            raise ImageNotFoundError(f"{shown}: the server says {response.status}: no access")
        else:
            raise ImageNotFoundError(f"{shown}: the server says {response.status}", "is the URL right?")
    finally:
        response.close()


def _follow(url: str, headers: Mapping[str, str], shown: str) -> urllib3.BaseHTTPResponse:
    """The response at the end of the redirects."""
    from urllib.parse import urljoin

    import urllib3

    first = _origin(url)
    for _ in range(_REDIRECTS):
        parsed = urllib3.util.parse_url(url)
        sent = dict(headers)
        if parsed.auth and _origin(url) == first:
            from urllib.parse import unquote

            sent |= urllib3.util.make_headers(basic_auth=unquote(parsed.auth))
        with _pool(url) as pool:
            response = pool.request(
                "GET",
                parsed._replace(auth=None).url,
                headers=sent,
                redirect=False,
                retries=False,
                preload_content=False,
                timeout=urllib3.Timeout(connect=_CONNECT, read=_SILENCE),
            )
            place = response.headers.get("Location")
            if response.status not in (301, 302, 303, 307, 308) or not place:
                return response
            response.close()
        following = urljoin(url, place)
        scheme = following.partition("://")[0]
        if scheme not in ("http", "https") or (url.startswith("https:") and scheme != "https"):
            raise ArchiveError(f"{shown} leads to {without_secrets(following)}, which isn't as safe")
        if parsed.auth and _origin(following) == _origin(url) and "@" not in following.split("/")[2]:
            following = following.replace("://", f"://{parsed.auth}@", 1)
        url = following
    raise ArchiveError(f"{shown} leads from one place to the next without end")


def _origin(url: str) -> tuple[str | None, str | None, int]:
    import urllib3

    parsed = urllib3.util.parse_url(url)
    return parsed.scheme, parsed.host, parsed.port or (443 if parsed.scheme == "https" else 80)


def _pool(url: str) -> urllib3.PoolManager:
    """What makes the connection: through the proxy that the environment names, if any."""
    from urllib.request import getproxies, proxy_bypass

    import urllib3

    scheme, host, port = _origin(url)
    proxies = getproxies()
    proxy = proxies.get(scheme or "") or proxies.get("all")
    if proxy and not proxy_bypass(f"{host}:{port}"):
        return urllib3.ProxyManager(proxy)
    return urllib3.PoolManager()


def _receive(response: urllib3.BaseHTTPResponse, partial: _Partial, shown: str) -> None:
    if response.status == 206:
        start = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
        if not partial.have or start != str(partial.have):
            partial.restart()
            raise _Broken("the server sent another part than was asked for")
    else:
        partial.restart()
    tag = response.headers.get("ETag", "")
    partial.tag = "" if tag.startswith("W/") else tag
    length = response.headers.get("Content-Length", "")
    expected = partial.have + int(length) if length.isdigit() else 0
    partial.progress.total = expected
    for piece in response.stream(_PIECE, decode_content=False):
        left = memoryview(piece)
        while left:
            left = left[os.write(partial.file, left) :]
        partial.have += len(piece)
        partial.progress.advance(len(piece))
    if expected and partial.have != expected:
        raise _Broken(f"the connection ended after {partial.have} of {expected} bytes")


def _reason(error: Exception) -> str:
    """The last cause in one line; the library wraps them in each other."""
    while isinstance(inner := getattr(error, "reason", None), Exception):
        error = inner
    text = " ".join(str(error).split())
    return text.rpartition(">: ")[2] if ">: " in text else text
