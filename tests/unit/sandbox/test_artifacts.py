"""Tar streams from supervisors that were tampered with."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contracts.sandbox_driver import MemorySink
from workers.sandbox import artifacts
from workers.sandbox.artifacts import ArtifactLimits, Reason
from workers.sandbox.errors import SandboxProtocolError

LIMITS = ArtifactLimits(file_bytes=1000, total_bytes=3000, count=5)


def member(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, **fields) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = len(data), kind
    for field, value in fields.items():
        setattr(info, field, value)
    header = info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
    return header + data + bytes(-len(data) % 512)


END = bytes(1024)


def pieces(stream: bytes, refused=(), size: int = 700):
    for at in range(0, len(stream), size):
        yield stream[at : at + size]
    return list(refused)


def collect(stream: bytes, *patterns: str, refused=(), limits=LIMITS, size: int = 700):
    sink = MemorySink()
    found = artifacts.collect(
        pieces(stream, refused, size),
        regexes=artifacts.as_regexes(patterns or ("**",)),
        limits=limits,
        sink=sink,
    )
    return found, sink


def reasons(found) -> list[Reason]:
    return [rejection.reason for rejection in found.rejections]


def test_plain_files_are_taken_with_their_sums():
    found, sink = collect(member("a.csv", b"abc") + member("b/c.txt") + END)

    assert sink.kept == {"a.csv": b"abc", "b/c.txt": b""}
    assert found.artifacts[0].sha256 == hashlib.sha256(b"abc").hexdigest()
    assert found.rejections == ()


@pytest.mark.parametrize("size", [1, 511, 512, 513, 100_000])
def test_pieces_may_be_of_any_size(size):
    name = "long/" * 40 + "name"
    stream = member("a", b"x" * 700) + member(name, b"y" * 512) + END

    _, sink = collect(stream, size=size, limits=ArtifactLimits())

    assert sink.kept == {"a": b"x" * 700, name: b"y" * 512}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../../x", Reason.UNSAFE_NAME),
        ("a/../../x", Reason.UNSAFE_NAME),
        ("/etc/passwd", Reason.UNSAFE_NAME),
        ("./x", Reason.UNSAFE_NAME),
        ("a//b", Reason.UNSAFE_NAME),
        (".", Reason.UNSAFE_NAME),
        ("..\\..\\x", Reason.UNSAFE_NAME),
        ("a\nb", Reason.NAME_NOT_TEXT),
        ("a\x1b[31mb", Reason.NAME_NOT_TEXT),
        ("a\u202egpj.exe", Reason.NAME_NOT_TEXT),
        ("a\udcff", Reason.NAME_NOT_TEXT),
        ("x" * 256, Reason.NAME_TOO_LONG),
        ("x/" * 200 + "y", Reason.NAME_TOO_LONG),
    ],
)
def test_a_bad_name_is_refused_and_the_next_file_is_taken(name, reason):
    found, sink = collect(member(name, b"bad") + member("good", b"fine") + END)

    assert reasons(found) == [reason]
    assert sink.kept == {"good": b"fine"}
    assert found.rejections[0].name.isprintable()


def test_a_name_with_a_nul_inside_is_refused():
    long_name = b"x" * 120 + b"\0/../../etc/passwd"
    header = member("././@LongLink", long_name + b"\0", tarfile.GNUTYPE_LONGNAME)

    found, sink = collect(header + member("short", b"data") + END)

    assert reasons(found) == [Reason.NAME_NOT_TEXT]
    assert sink.kept == {}


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (tarfile.SYMTYPE, Reason.SYMLINK),
        (tarfile.LNKTYPE, Reason.HARD_LINK),
        (tarfile.FIFOTYPE, Reason.SPECIAL_FILE),
        (tarfile.CHRTYPE, Reason.SPECIAL_FILE),
        (tarfile.BLKTYPE, Reason.SPECIAL_FILE),
        (tarfile.DIRTYPE, Reason.FOLDER),
    ],
)
def test_what_is_no_file_is_refused_and_the_next_file_is_taken(kind, reason):
    stream = member("bad", kind=kind, linkname="/etc/passwd") + member("good", b"fine") + END

    found, sink = collect(stream)

    assert reasons(found) == [reason]
    assert sink.kept == {"good": b"fine"}


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_SPARSE, b"?"])
def test_members_of_unknown_kind_end_the_reading(kind):
    with pytest.raises(SandboxProtocolError, match="unknown kind"):
        collect(member("x", b"path=/etc/passwd", kind) + member("good") + END)


def test_a_name_comes_once():
    found, sink = collect(member("a", b"first") + member("a", b"second") + END)

    assert sink.kept == {"a": b"first"}
    assert reasons(found) == [Reason.DUPLICATE_NAME]


def test_what_was_not_declared_is_not_taken():
    found, sink = collect(member("wanted.csv") + member("other.txt") + END, "*.csv")

    assert list(sink.kept) == ["wanted.csv"]
    assert reasons(found) == [Reason.NOT_DECLARED]


def test_sizes_and_counts_are_checked_again():
    large, _ = collect(member("a", b"x" * 1001) + END)
    total, _ = collect(b"".join(member(str(n), b"x" * 900) for n in range(4)) + END)
    many, _ = collect(b"".join(member(str(n)) for n in range(7)) + END)

    assert reasons(large) == [Reason.FILE_TOO_LARGE]
    assert (len(total.artifacts), reasons(total)) == (3, [Reason.TOTAL_TOO_LARGE])
    assert (len(many.artifacts), reasons(many)) == (5, [Reason.TOO_MANY_FILES] * 2)


def test_data_without_end_is_stopped():
    header = tarfile.TarInfo("a")
    header.size = 1 << 40

    def flood():
        yield header.tobuf(tarfile.GNU_FORMAT)
        while True:
            yield b"x" * 100_000

    with pytest.raises(SandboxProtocolError, match="more artifact data"):
        artifacts.collect(flood(), regexes={"**": ".*"}, limits=ArtifactLimits(), sink=MemorySink())


def test_names_without_end_are_stopped():
    header = tarfile.TarInfo("x")
    header.size, header.type = 1 << 30, tarfile.GNUTYPE_LONGNAME

    with pytest.raises(SandboxProtocolError, match="endless name"):
        collect(header.tobuf(tarfile.GNU_FORMAT) + bytes(10_000))


def test_refusals_without_end_are_stopped():
    with pytest.raises(SandboxProtocolError, match="without end"):
        collect(member("x", kind=tarfile.SYMTYPE) * 300 + END)


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        b"x" * 512,
        member("a", b"abc")[:-1],
        member("a", b"abc"),
        b"\x1f\x8b" + bytes(1000),
        member("a", b"abc")[:100] + b"9" + member("a", b"abc")[101:],
    ],
)
def test_what_is_no_tar_stream_is_a_protocol_error(stream):
    with pytest.raises(SandboxProtocolError):
        collect(stream)


def test_a_broken_stream_discards_the_file_it_broke():
    sink = MemorySink()
    stream = member("whole", b"fine") + member("broken", b"x" * 600)[:900]

    with pytest.raises(SandboxProtocolError):
        artifacts.collect(pieces(stream), regexes={"**": ".*"}, limits=LIMITS, sink=sink)

    assert (list(sink.kept), sink.discarded) == (["whole"], ["broken"])


def test_what_the_supervisor_refused_is_told():
    found, _ = collect(
        member("good") + END, refused=[("bad", "symlink"), ("good", "changed_while_read")]
    )

    assert found.artifacts == ()
    assert reasons(found) == [Reason.SYMLINK, Reason.CHANGED_WHILE_READ]
    assert "'bad' was rejected: symlink (2 rejected" in str(found.error())


def test_a_reason_nobody_knows_is_a_protocol_error():
    with pytest.raises(SandboxProtocolError):
        collect(END, refused=[("x", "because")])


def test_a_declared_pattern_without_a_file_is_told():
    found, _ = collect(member("a.csv") + END, "*.csv", "report.md", "charts/**")

    assert found.unmatched == ("report.md", "charts/**")


@pytest.mark.parametrize(
    ("pattern", "matches", "misses"),
    [
        ("clean.csv", ["clean.csv"], ["cleanxcsv", "a/clean.csv", "clean.csv2"]),
        ("*.svg", ["a.svg", ".svg"], ["a/b.svg", "a.svgz"]),
        ("charts/*", ["charts/a"], ["charts/a/b", "charts", "xcharts/a"]),
        ("charts/", ["charts/a", "charts/a/b"], ["charts"]),
        ("**", ["a", "a/b/c"], []),
        ("**/*.csv", ["a.csv", "x/y/a.csv"], ["a.txt"]),
        ("a?c", ["abc"], ["ac", "a/c", "abbc"]),
        ("[ab].(x)", ["[ab].(x)"], ["a.x"]),
    ],
)
def test_patterns_mean_what_they_say(pattern, matches, misses):
    regex = re.compile(artifacts.as_regex(pattern), re.DOTALL)

    assert [name for name in matches if not regex.fullmatch(name)] == []
    assert [name for name in misses if regex.fullmatch(name)] == []


@pytest.mark.parametrize(
    "pattern",
    ["", "/etc/passwd", "../x", "a/../b", "a\0b", "x" * 300, "**/**/**/x", "*a*a*a*a*a*a*a*a*a"],
)
def test_a_pattern_cannot_point_elsewhere_or_take_for_ever(pattern):
    with pytest.raises(ValueError, match="artifact pattern"):
        artifacts.as_regexes([pattern])


def test_patterns_are_counted():
    with pytest.raises(ValueError, match="100"):
        artifacts.as_regexes([f"{n}.csv" for n in range(101)])


valid = b"".join([member("a", b"abc"), member("n" * 150, b"y" * 600), member("b/c")]) + END


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_mutated_stream_gives_safe_names_or_a_protocol_error(data):
    stream = bytearray(valid)
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(stream) - 1))
        stream[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        _fix_checksums(stream)
    cut = data.draw(st.integers(0, len(stream)))

    try:
        _, sink = collect(bytes(stream[:cut] if cut % 3 == 0 else stream))
    except SandboxProtocolError:
        return

    for name in sink.kept:
        assert not name.startswith("/")
        assert ".." not in name.split("/")
        assert name.isprintable()


def _fix_checksums(stream: bytearray) -> None:
    """Make the first header believable again, so that what it says is really read."""
    stream[148:156] = b"        "
    stream[148:156] = b"%06o\0 " % sum(stream[:512])


def test_the_test_streams_are_what_tar_reads():
    with tarfile.open(fileobj=io.BytesIO(valid)) as archive:
        assert archive.getnames() == ["a", "n" * 150, "b/c"]
