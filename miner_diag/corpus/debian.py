"""PDFs out of Debian packages: downloaded as an ordinary user, unpacked without installing, verified, kept."""

from __future__ import annotations

import gzip
import logging
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from tqdm.auto import tqdm

from miner_diag.corpus.core import CorpusError
from miner_diag.corpus.manifest_file import Manifest, ManifestDocument, ManifestPackage
from miner_diag.files import cache_folder, sha256_bytes, sha256_file, write_atomic
from miner_diag.texts import inert

logger = logging.getLogger(__name__)

MAX_PDF_BYTES = 200_000_000
"""Largest PDF that is unpacked."""
TIMEOUT = 1_800
"""Seconds that one download may take."""
EXACT = ("-o", "APT::Cmd::Pattern-Only=true")
"""Without it apt-get takes a name with a dot or a plus that it does not know for a pattern of many packages."""
ELSEWHERE = "use --data sample, which is shipped with the package, or --data path/to/a/folder of your own PDFs"
"""What to do on a machine without Debian's packages."""


def fetch_debian(manifest: Manifest) -> dict[str, Path]:
    """Return doc_id -> path of a manifest's PDFs, fetching the packages of those that are not in the cache yet.

    PDFs are kept by their SHA-256, each written whole or not at all: an interrupted fetch goes on with the packages
    that are still missing. Nothing is installed and no right beyond an ordinary user's is needed.

    Raises
    ------
    CorpusError
        If apt-get or dpkg-deb is missing, a download fails, or a PDF is absent or is not the one the manifest names.
    """
    files = {document.id: pdf_path(document.sha256) for document in manifest.documents}
    wanted: dict[str, list[ManifestDocument]] = defaultdict(list)
    for document in manifest.documents:
        path = files[document.id]
        if not path.is_file() or sha256_file(path) != document.sha256:
            wanted[document.package].append(document)
    if not wanted:
        return files
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise CorpusError(f"data set {manifest.name} is fetched with {tool}, which this machine lacks; {ELSEWHERE}")
    packages = [package for package in manifest.packages if package.name in wanted]
    if missing := set(wanted) - {package.name for package in packages}:
        raise CorpusError(f"manifest {manifest.name} lists documents of packages it does not name: {sorted(missing)}")
    megabytes = sum(package.bytes for package in packages) / 1e6
    logger.warning("fetching %d packages, %.0f MB, into %s", len(packages), megabytes, pdf_path("").parent)
    with tqdm(total=round(megabytes, 1), desc=inert(manifest.name), unit="MB") as bar:
        for package in packages:
            bar.set_postfix_str(package.name)
            _fetch_package(package, wanted[package.name], manifest.name)
            bar.update(package.bytes / 1e6)
    return files


def pdf_path(sha256: str) -> Path:
    """Where a fetched PDF is kept."""
    return cache_folder() / "pdfs" / f"{sha256}.pdf"


def _fetch_package(package: ManifestPackage, documents: Sequence[ManifestDocument], data: str) -> None:
    with tempfile.TemporaryDirectory(prefix="miner-diag-") as folder:
        deb = _download(package, Path(folder), data)
        contents = _unpack(deb, {document.path for document in documents})
    for document in documents:
        if document.path not in contents:
            raise CorpusError(f"data set {data}: {package.name} {deb.name} holds no {document.path}; {ELSEWHERE}")
        found = sha256_bytes(contents[document.path])
        if found != document.sha256:
            raise CorpusError(
                f"data set {data}: {document.path} of {deb.name} has sha256 {found[:12]}…, the manifest (version "
                f"{package.version}) says {document.sha256[:12]}…: another Debian release? Otherwise {ELSEWHERE}"
            )
        write_atomic(pdf_path(document.sha256), contents[document.path])


def _download(package: ManifestPackage, folder: Path, data: str) -> Path:
    """Run apt-get download for the manifest's version, else for the one that apt has: the PDFs' hashes decide."""
    failures = []
    for name in (f"{package.name}={package.version}", package.name):
        try:
            done = subprocess.run(
                ["apt-get", "download", "-q", *EXACT, "--", name],
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=TIMEOUT,
                check=False,
                env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
            )
        except subprocess.TimeoutExpired:
            raise CorpusError(f"data set {data}: downloading {name} took over {TIMEOUT} s; run it again") from None
        debs = sorted(folder.glob("*.deb"))
        if done.returncode == 0 and debs:
            return debs[0]
        failures.append(f"{name}: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else done.returncode}")
    raise CorpusError(
        f"data set {data}: apt-get could not download {package.name} ({'; '.join(failures)}). "
        f"Run apt-get update as an administrator and try again, or {ELSEWHERE}"
    )


def _unpack(deb: Path, paths: set[str]) -> dict[str, bytes]:
    """Read the named files out of a package: nothing is written, so no name in it can lead anywhere."""
    found: dict[str, bytes] = {}
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", "--", str(deb)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                if name in paths and member.isfile():
                    handle = archive.extractfile(member)
                    assert handle is not None
                    found[name] = _read(handle, name)
        process.stdout.read()
    if process.returncode != 0:
        raise CorpusError(f"{deb.name} is damaged (dpkg-deb ended with {process.returncode}); run it again")
    return found


def _read(handle: IO[bytes], name: str) -> bytes:
    try:
        stream: IO[bytes] = gzip.GzipFile(fileobj=handle) if name.endswith(".gz") else handle  # type: ignore[assignment]
        content = stream.read(MAX_PDF_BYTES + 1)
    except (OSError, EOFError) as error:
        raise CorpusError(f"{name} can't be unpacked: {error}") from None
    if len(content) > MAX_PDF_BYTES:
        raise CorpusError(f"{name} is larger than {MAX_PDF_BYTES:,} bytes")
    return content
