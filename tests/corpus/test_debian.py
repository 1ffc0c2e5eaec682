"""Fetching from Debian packages, against real .deb files and a stand-in apt-get that copies them."""

import gzip
import os
import shutil
import stat
import subprocess

import pytest

from miner_diag.corpus import CorpusError, debian
from miner_diag.corpus.manifest_file import Manifest, ManifestDocument, ManifestPackage
from miner_diag.files import sha256_bytes

needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not installed")
PLAIN, PACKED = b"%PDF-1.4 plain", b"%PDF-1.4 packed"


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A .deb with two PDFs, and an apt-get that 'downloads' it and notes that it was called."""
    root = tmp_path / "root"
    (root / "DEBIAN").mkdir(parents=True)
    control = "Package: docs-a\nVersion: 1.0\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n"
    (root / "DEBIAN/control").write_text(control)
    folder = root / "usr/share/doc/docs-a"
    folder.mkdir(parents=True)
    (folder / "plain.pdf").write_bytes(PLAIN)
    (folder / "packed.pdf.gz").write_bytes(gzip.compress(PACKED))
    (folder / "link.pdf").symlink_to("/etc/passwd")
    debs = tmp_path / "debs"
    debs.mkdir()
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", root, debs], check=True, capture_output=True)
    (debs / "docs-a_1.0_all.deb").rename(debs / "docs-a.deb")
    tools = tmp_path / "tools"
    tools.mkdir()
    script = tools / "apt-get"
    script.write_text(
        f'#!/bin/sh\nfor wanted; do :; done\nname="${{wanted%%=*}}"\n'
        f'echo "$wanted" >> {tmp_path}/asked\necho "$*" >> {tmp_path}/arguments\n'
        f'cp {debs}/$name.deb . 2>/dev/null || {{ echo "E: Unable to locate package $name" >&2; exit 100; }}\n'
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("MINER_DIAG_CACHE", str(tmp_path / "cache"))
    return tmp_path


def document(name, content, **changes):
    path = f"usr/share/doc/docs-a/{name}"
    fields = {
        "id": name.split(".")[0],
        "sha256": sha256_bytes(content),
        "package": "docs-a",
        "version": "1.0",
        "path": path,
    }
    return ManifestDocument(**fields | changes)


def manifest(*documents, packages=("docs-a",)):
    rows = tuple(ManifestPackage(name, "1.0", 1_000_000) for name in packages)
    return Manifest("test-docs", "debian", "", documents, rows)


def asked(mirror):
    path = mirror / "asked"
    return path.read_text().splitlines() if path.exists() else []


@needs_dpkg
def test_pdfs_are_taken_out_verified_and_kept(mirror):
    files = debian.fetch_debian(manifest(document("plain.pdf", PLAIN), document("packed.pdf.gz", PACKED)))
    assert files["plain"].read_bytes() == PLAIN
    assert files["packed"].read_bytes() == PACKED
    assert asked(mirror) == ["docs-a=1.0"]
    assert debian.fetch_debian(manifest(document("plain.pdf", PLAIN))) == {"plain": files["plain"]}
    assert asked(mirror) == ["docs-a=1.0"], "what is in the cache is not fetched again"


@needs_dpkg
def test_what_comes_from_the_manifest_stands_behind_the_options(mirror):
    debian.fetch_debian(manifest(document("plain.pdf", PLAIN)))
    (arguments,) = (mirror / "arguments").read_text().splitlines()
    assert arguments.endswith(" -- docs-a=1.0")


@needs_dpkg
def test_a_damaged_file_in_the_cache_is_fetched_again(mirror):
    wanted = manifest(document("plain.pdf", PLAIN))
    path = debian.fetch_debian(wanted)["plain"]
    path.write_bytes(b"half")
    assert debian.fetch_debian(wanted)["plain"].read_bytes() == PLAIN
    assert len(asked(mirror)) == 2


@needs_dpkg
def test_an_interrupted_fetch_goes_on_with_what_is_missing(mirror):
    shutil.copy(mirror / "debs/docs-a.deb", mirror / "debs/docs-b.deb")
    first, second = document("plain.pdf", PLAIN), document("packed.pdf.gz", PACKED, package="docs-b")
    both = manifest(first, second, packages=("docs-a", "docs-b"))
    (mirror / "debs/docs-b.deb").rename(mirror / "debs/away.deb")
    with pytest.raises(CorpusError, match=r"could not download docs-b .*Unable to locate package docs-b"):
        debian.fetch_debian(both)
    (mirror / "debs/away.deb").rename(mirror / "debs/docs-b.deb")
    debian.fetch_debian(both)
    assert [name.split("=")[0] for name in asked(mirror)].count("docs-a") == 1


@needs_dpkg
def test_another_file_under_the_same_name_is_refused(mirror):
    with pytest.raises(
        CorpusError, match=r"plain\.pdf of docs-a\.deb has sha256 .* another Debian release.*--data sample"
    ):
        debian.fetch_debian(manifest(document("plain.pdf", b"something else")))
    assert not list((mirror / "cache").rglob("*.pdf"))


@needs_dpkg
@pytest.mark.parametrize("name", ["absent.pdf", "link.pdf"])
def test_an_absent_file_and_a_link_are_refused(mirror, name):
    with pytest.raises(CorpusError, match=f"holds no usr/share/doc/docs-a/{name}"):
        debian.fetch_debian(manifest(document(name, PLAIN)))


@needs_dpkg
def test_a_file_that_unpacks_to_too_much_is_refused(mirror, monkeypatch):
    monkeypatch.setattr(debian, "MAX_PDF_BYTES", 10)
    with pytest.raises(CorpusError, match="packed.pdf.gz is larger than 10 bytes"):
        debian.fetch_debian(manifest(document("packed.pdf.gz", PACKED)))


def test_without_apt_the_error_names_what_works(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("MINER_DIAG_CACHE", str(tmp_path / "cache"))
    with pytest.raises(CorpusError, match=r"fetched with apt-get, which this machine lacks; use --data sample.*folder"):
        debian.fetch_debian(manifest(document("plain.pdf", PLAIN)))
