"""Folders that lie on an object store or another remote file system: `s3://bucket/run`.

Whatever computes with files wants them on a disk: NumPy maps them, policies save into a folder. So
a remote folder has a copy here, below `home`, at a path that says which address it is of; nothing
else needs to be known of it, in whatever process. What is written there is put onto the store by
`simulator.log.ledger.commit`, and what is read is brought here first. A store is asked for four
things only: read, write, list, delete; no rename, no lock, no append.

S3, Google Cloud Storage, Azure and HDFS are reached by Arrow, every other protocol by fsspec.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from policies.staging import staging_of

if TYPE_CHECKING:
    from pyarrow import NativeFile, fs

ARROW = frozenset({"s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs"})
"""Protocols that Arrow speaks itself."""

FLAT = frozenset({"s3", "gcs", "abfs"})
"""What Arrow calls file systems that have no folders: none is made there."""

CHUNK = 8 << 20
"""Bytes that are held at once while a file goes to a store or comes from it."""


class FileError(ValueError):
    """A file that cannot be written, is missing or is damaged; the message names it and says what
    to do.
    """


class AddressError(ValueError):
    """An address that cannot be used; the message says why and what can."""


@dataclass(frozen=True)
class Store:
    """A bucket, or the root of another remote file system. Names are paths below it.

    Attributes:
        address: `s3://bucket`.
        files: how Arrow reaches it.
        base: its path there, which names are put behind.
    """

    address: str
    files: fs.FileSystem
    base: str

    def read(self, name: str, path: Path) -> None:
        """Copy a file to `path`, which it gets when it is whole.

        Raises:
            FileError: it is not there, or cannot be read.
        """
        staging = staging_of(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._reaching(name):
            try:
                with (
                    self.files.open_input_stream(self._at(name)) as source,
                    staging.open("wb") as target,
                ):
                    shutil.copyfileobj(source, target, CHUNK)
                os.replace(staging, path)
            finally:
                staging.unlink(missing_ok=True)

    def open(self, name: str) -> NativeFile:
        """A file as it lies there, of which no more comes here than is read.

        Raises:
            FileError: it is not there, or cannot be reached.
        """
        with self._reaching(name):
            return self.files.open_input_file(self._at(name))

    def text(self, name: str) -> str | None:
        """What a small file says; None where it is not there.

        Raises:
            FileError: it cannot be read.
        """
        with self._reaching(name):
            try:
                with self.files.open_input_stream(self._at(name)) as stream:
                    return bytes(stream.read()).decode()
            except FileNotFoundError:
                return None

    def write(self, path: Path, name: str) -> None:
        """Put the file at `path` there, in place of what there may be.

        Raises:
            FileError: it cannot be written.
        """
        with path.open("rb") as source:
            self._put(source, name)

    def write_text(self, name: str, text: str) -> None:
        """Put a small file there, in place of what there may be.

        Raises:
            FileError: it cannot be written.
        """
        import io

        self._put(io.BytesIO(text.encode()), name)

    def list(self, folder: str) -> dict[str, fs.FileInfo]:
        """The files at or below `folder` by their names.

        Raises:
            FileError: it cannot be listed.
        """
        from pyarrow import fs

        with self._reaching(folder):
            here = self.files.get_file_info(self._at(folder))
            found = [here]
            if here.type != fs.FileType.File:
                select = fs.FileSelector(self._at(folder), allow_not_found=True, recursive=True)
                found = self.files.get_file_info(select)
        start = len(self._at(""))
        return {one.path[start:]: one for one in found if one.type == fs.FileType.File}

    def delete(self, folder: str) -> None:
        """Remove a file, or all that is below a folder; nothing where neither is there.

        Raises:
            FileError: it cannot be removed.
        """
        from pyarrow import fs

        with self._reaching(folder):
            kind = self.files.get_file_info(self._at(folder)).type
            if kind == fs.FileType.File:
                self.files.delete_file(self._at(folder))
            elif kind == fs.FileType.Directory:
                self.files.delete_dir(self._at(folder))

    def _put(self, source: Any, name: str) -> None:
        with self._reaching(name):
            if self.files.type_name not in FLAT:
                self.files.create_dir(self._at(name).rpartition("/")[0], recursive=True)
            with self.files.open_output_stream(self._at(name)) as target:
                shutil.copyfileobj(source, target, CHUNK)

    def _at(self, name: str) -> str:
        return f"{self.base}/{name}"

    @contextmanager
    def _reaching(self, name: str) -> Iterator[None]:
        """Turn what a store says into a FileError: each of them has errors of its own."""
        try:
            yield
        except FileNotFoundError as error:
            raise FileError(f"{self.address}/{name} is missing") from error
        except Exception as error:
            why = str(error).strip().splitlines() or [type(error).__name__]
            raise FileError(
                f"{self.address}/{name} cannot be reached: {why[0]}; look at the address, at the"
                " credentials in the environment, and at what they may do there"
            ) from error


def home() -> Path:
    """Where the copies of remote folders lie on this machine: a folder for each store, named by its
    protocol and its options.
    """
    cache = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(cache):
        cache = os.path.expanduser("~/.cache")
    if os.path.isabs(cache):
        return Path(cache, "abtest", "stores")
    return Path(tempfile.gettempdir(), f"abtest-stores-{os.getuid()}")


def place(given: Path | str) -> Path:
    """Where a file or folder that somebody has named is worked on: a local path as it is, that of
    the copy of a remote one.

    Args:
        given: a path, or an address, `PROTOCOL://BUCKET/PATH`, with options of its file system
            after a `?`.

    Raises:
        AddressError: no such protocol is known here, no place within a bucket is named, it holds
            credentials, or a `Path` has shortened it.
    """
    text = os.fspath(given)
    protocol, is_address, _ = text.partition("://")
    if not is_address:
        shortened = re.match(r"([a-z][a-z0-9+.-]+):/", text)
        if isinstance(given, Path) and shortened:
            raise AddressError(
                f"{text}: Path() leaves out a slash of an address; give it as text,"
                f" '{shortened[1]}://...'"
            )
        return Path(given)
    parts = urlsplit(text)
    if protocol == "file":
        return Path(unquote(parts.path))
    _check_protocol(protocol, text)
    steps = [step for step in parts.path.split("/") if step]
    if not parts.netloc or not steps or {".", ".."} & set(steps):
        raise AddressError(f"{text}: give an address as {protocol}://BUCKET/FOLDER")
    if "@" in parts.netloc:
        raise AddressError(
            f"{protocol}://...@{parts.netloc.rpartition('@')[2]}{parts.path}: credentials in an"
            " address end up in logs; give them by the environment, as the store's own tools take"
            " them"
        )
    top = protocol if not parts.query else f"{protocol}?{parts.query}"
    return home().joinpath(quote(top, safe="?"), parts.netloc, *steps)


def around(path: Path) -> tuple[Store, str] | None:
    """The store that the copy at `path` is of, and its name there; None of a local path."""
    top = home()
    if not path.is_absolute() or not path.is_relative_to(top):
        return None
    protocol, bucket, *steps = path.relative_to(top).parts
    return _connected(unquote(protocol), bucket), "/".join(steps)


def address_of(path: Path) -> str:
    """The path of a local file or folder from the root, or the address that one is the copy of."""
    whole = path if path.is_relative_to(home()) else path.resolve()
    if not whole.is_relative_to(home()):
        return str(whole)
    top, bucket, *steps = whole.relative_to(home()).parts
    protocol, _, query = unquote(top).partition("?")
    return f"{protocol}://{'/'.join([bucket, *steps])}{query and f'?{query}'}"


def with_addresses(text: str) -> str:
    """A message in which the copies of remote files are called by their addresses."""
    copies = rf"{re.escape(str(home()))}/([a-z0-9+.-]+)(?:\?[^/\s]*)?/"
    return re.sub(copies, r"\1://", text)


@lru_cache(maxsize=16)
def _connected(protocol: str, bucket: str) -> Store:
    """
    Raises:
        FileError: the store cannot be reached.
    """
    from pyarrow import fs

    scheme, _, options = protocol.partition("?")
    address = f"{scheme}://{bucket}"
    try:
        if scheme in ARROW:
            files, base = fs.FileSystem.from_uri(f"{address}{options and f'?{options}'}")
        else:
            import fsspec

            inner, base = fsspec.core.url_to_fs(address, **dict(parse_qsl(options)))
            files = fs.PyFileSystem(fs.FSSpecHandler(inner))
    except Exception as error:
        raise FileError(f"{address} cannot be reached: {error}") from error
    return Store(address, files, base.rstrip("/"))


def _check_protocol(protocol: str, address: str) -> None:
    """
    Raises:
        AddressError: neither Arrow nor fsspec speaks it here.
    """
    if protocol in ARROW:
        return
    try:
        import fsspec

        fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        raise AddressError(f"{address}: {protocol}:// needs a package: {error}") from error
    except ValueError as error:
        raise AddressError(
            f"{address}: no protocol {protocol!r} is known; give a path, or an address of s3://,"
            " gs://, abfs://, hdfs:// or of a protocol of fsspec"
        ) from error
