"""Who may ask the server of the lab for what."""

import http.client
import socket
import sys
import urllib.error
import urllib.request
from http.cookiejar import CookieJar
from urllib.parse import urlsplit

import pytest

from dlworkshop import cli
from tests.lab.conftest import served


def said(capsys, *args) -> str:
    """The one sentence that a mistake is answered with."""
    assert cli.main(["lab", *map(str, args)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1
    return err


def test_without_marimo_one_sentence_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "marimo", None)
    monkeypatch.setitem(sys.modules, "anywidget", None)
    wanted = "dlworkshop lab needs anywidget, which is not installed: pip install"
    assert wanted in said(capsys)


def test_mistakes_are_one_sentence(capsys, tmp_path):
    pytest.importorskip("marimo", reason="marimo is missing")
    assert "has no summary.json" in said(capsys, tmp_path)
    assert "port is 70000" in said(capsys, "--port", 70000)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"port {port} of 127.0.0.1 cannot be used" in said(
            capsys, "--port", port
        )


@pytest.fixture(scope="module")
def address():
    with served() as found:
        yield found


@pytest.fixture(scope="module")
def ask(address):
    """ask(path, body, **headers) -> status and text, for who knows the token."""
    parts = urlsplit(address)
    opener = urllib.request.build_opener(
        urllib.request.HTTPCookieProcessor(CookieJar())
    )
    opener.open(address).close()

    def asked(path, body=None, headers=None, opener=opener):
        there = f"{parts.scheme}://{parts.netloc}{path}"
        request = urllib.request.Request(there, body, headers or {})
        try:
            with opener.open(request) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    return asked


def test_it_listens_on_this_machine_only(address):
    port = urlsplit(address).port
    with open("/proc/net/tcp") as table:
        rows = [line.split()[1] for line in table if line.split()[3] == "0A"]
    assert f"0100007F:{port:04X}" in rows
    assert f"00000000:{port:04X}" not in rows


def test_who_does_not_know_the_token_is_refused(ask):
    stranger = urllib.request.build_opener()
    for path in ("/", "/playground/", "/?token=guess", "/playground/api/version"):
        assert ask(path, opener=stranger)[0] == 403, path
    status, text = ask("/")
    assert status == 200 and 'href="playground/"' in text
    assert ask("/playground/")[0] == 200


@pytest.mark.parametrize(
    ("path", "origin", "status"),
    [
        ("playground/ws?session_id=s_1", None, 101),
        ("playground/ws?session_id=s_2", "http://evil.example", 403),
        ("playground/terminal/ws", None, 403),
    ],
)
def test_a_socket_is_for_our_pages_alone(address, path, origin, status):
    parts = urlsplit(address)
    port, token = parts.port, parts.query.removeprefix("token=")
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
        "Cookie": f"dlworkshop-lab-{port}={token}",
        "Origin": origin or f"http://127.0.0.1:{port}",
    }
    for cookie, wanted in ((headers["Cookie"], status), ("", 403)):
        asked = http.client.HTTPConnection("127.0.0.1", port)
        asked.request("GET", f"/{path}", headers=headers | {"Cookie": cookie})
        assert asked.getresponse().status == wanted
        asked.close()


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:80"},
        {"Host": "127.0.0.1.evil.example:80"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
    ],
    ids=str,
)
def test_pages_of_other_sites_are_refused(ask, headers):
    assert ask("/playground/", headers=headers)[0] == 403


@pytest.mark.parametrize(
    "call",
    [
        "api/kernel/run",
        "api/kernel/execute",
        "api/kernel/scratchpad/run",
        "api/kernel/instantiate",
        "api/kernel/read_code",
        "api/kernel/install_missing_packages",
        "api/files/file_details",
        "api/files/list_files",
        "api/export/html",
        "api/packages/add",
        "api/kernel/run/../set_model_value",
        "api//kernel/run",
        "x/api/kernel/set_model_value",
    ],
)
def test_no_call_runs_code_or_reads_files(ask, call):
    body = b'{"cellIds": ["x"], "codes": ["1"], "code": "1", "path": "/etc/passwd"}'
    headers = {"Content-Type": "application/json", "Marimo-Session-Id": "s"}
    status, text = ask(f"/playground/{call}", body, headers)
    assert status in (403, 404, 405) and "root:" not in text


@pytest.mark.parametrize(
    "path",
    [
        "/playground/?file=/etc/passwd",
        "/playground/../../etc/passwd",
        "/playground/public/../../../etc/passwd",
        "/playground/%2e%2e/%2e%2e/etc/passwd",
        "/playground/@file/10-/etc/passwd",
        "/playground/playground.py",
        "/playground/assets/../index.html/../../../../etc/passwd",
    ],
)
def test_no_address_leads_to_a_file(ask, path):
    _, text = ask(path)
    assert "root:" not in text and "marimo.App" not in text
