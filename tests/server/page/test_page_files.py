"""What the browser gets: files of the package, under a strict policy."""

from __future__ import annotations

import re
from importlib.resources import files

import httpx
import pytest
from serving import serving

_PAGE = files("outrider.server.page")
_OWN = ["/", *(f"/page/{file.name}" for file in _PAGE.iterdir() if file.name.endswith((".js", ".css")))]
_VENDORED = ["/page/vendor/markdown-it.esm.min.mjs", "/page/vendor/LICENSES.txt"]
_KINDS = {"js": "text/javascript", "mjs": "text/javascript", "css": "text/css", "txt": "text/plain", "/": "text/html"}


@pytest.mark.parametrize("path", [*_OWN, *_VENDORED])
def test_files_have_their_types_and_a_strict_policy(url, path):
    found = httpx.get(url + path)
    assert found.status_code == 200
    assert found.headers["content-type"] == f"{_KINDS[path.rpartition('.')[2]]}; charset=utf-8"
    assert found.headers["x-content-type-options"] == "nosniff"
    policy = dict(part.strip().split(" ", 1) for part in found.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert httpx.post(url + path).status_code == 405
    if path in _OWN:  # nothing from elsewhere; a namespace is a name, no address
        assert not re.search(r"\w+://", found.text.replace("http://www.w3.org/2000/svg", ""))


def test_no_script_and_no_style_is_inline(url):
    text = httpx.get(url).text
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", text)
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", text))


def test_no_text_is_read_as_html():
    for file in _PAGE.iterdir():
        if file.name.endswith(".js"):
            source = file.read_text(encoding="utf-8")
            assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|DOMParser|\beval\b", source), file


def test_each_file_has_one_subject():
    for file in _PAGE.iterdir():
        if file.name.endswith((".js", ".css", ".html")):
            assert len(file.read_text(encoding="utf-8").splitlines()) < 400, file


def test_the_page_needs_no_key_and_no_other_file_can_be_had(served_llm):
    with serving(served_llm, keys=["secret"]) as (base, _):
        assert httpx.get(base).status_code == 200
        for path in ("/page/__init__.py", "/page/../app.py", "/page/%2e%2e/app.py", "/page/", "/page/vendor/"):
            assert httpx.get(base + path).status_code == 404
