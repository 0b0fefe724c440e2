"""Fetches python-kasa's source package and unpacks the dumps of devices in it: fetch_dumps.py DIRECTORY

The package is not built: only data is wanted of it, and pip would ask for its build tools. The index is the one that
pip is configured to use.
"""

import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import urllib.parse
import urllib.request

from pip._internal.models.index import PyPI

PACKAGE = "python_kasa-0.12.0.tar.gz"
SHA256 = "92b0cd9eafc89a07a31e5652dd494a2eed0477fc1b0e517ba1b1a045d2cf3643"
DUMPS = re.compile(r"[^/]+/tests/fixtures/iot/([^/]+\.json)")


def index() -> str:
    asked = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.index-url"],
        capture_output=True,
        text=True,
        check=False,
    )
    return os.environ.get("PIP_INDEX_URL") or asked.stdout.strip() or PyPI.simple_url


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=180) as reply:
        return reply.read()


def package() -> bytes:
    page = f"{index().rstrip('/')}/python-kasa/"
    links = re.findall(r'href="([^"]+)"', get(page).decode())
    link = next(link for link in links if PACKAGE in link)
    content = get(urllib.parse.urljoin(page, link))
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        sys.exit(f"{PACKAGE} has the hash {found} and not {SHA256}")
    return content


def main(directory: str) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory)
    with tarfile.open(fileobj=io.BytesIO(package())) as archive:
        for member in archive:
            dump = DUMPS.fullmatch(member.name)
            if dump and (file := archive.extractfile(member)):
                with open(os.path.join(directory, dump[1]), "wb") as copy:
                    copy.write(file.read())
    with open(os.path.join(directory, "installed"), "w", encoding="utf-8") as note:
        note.write(f"{PACKAGE} {SHA256}\n")


main(sys.argv[1])
