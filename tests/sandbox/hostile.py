"""Archives and frames as nobody decent sends them, and a supervisor that sends them."""

from __future__ import annotations

import gzip
import io
import random
import struct
import tarfile
import zipfile
import zlib

END = bytes(1024)

#: Takes the supervisor's place in an image. It greets as it should, then answers with what lies beside it.
SUPERVISOR = """
import json, os, sys, time, zlib
def send(body=b"", **words):
    sys.stdout.buffer.write(json.dumps(words).encode() + b"\\n" + body); sys.stdout.flush()
for line in sys.stdin:
    asked = json.loads(line)
    kind, ident = asked["type"], asked.get("id")
    if kind == "hello":
        send(type="hello", v=2, pid=os.getpid(), uid=os.getuid(), python="3")
    elif kind == "tar_out":
        name = asked["patterns"][0].replace("\\\\", "").split("~")[1]
        data = open("/opt/aos/archives/" + name, "rb").read()
        for at in range(0, len(data), 200_000):
            piece = data[at:at + 200_000]
            send(piece, type="data", id=ident, length=len(piece))
        send(type="done", id=ident, size=len(data), crc32=zlib.crc32(data), rejected=[])
    elif kind == "get":
        name = asked["path"]
        if name == "silence": time.sleep(3600)
        if name == "the end": os._exit(0)
        data = open("/opt/aos/frames/" + name, "rb").read().replace(b"@ID@", ident.encode())
        sys.stdout.buffer.write(data); sys.stdout.buffer.flush()
        while name.startswith("without_end"): sys.stdout.buffer.write(data)
        time.sleep(3600)
"""


def header(name, size=0, kind=tarfile.REGTYPE, linkname="", **fields) -> bytes:
    info = tarfile.TarInfo()
    info.type, info.size, info.linkname = kind, size, linkname
    for field, value in fields.items():
        setattr(info, field, value)
    raw = name if isinstance(name, bytes) else name.encode("utf-8", "surrogateescape")
    info.name = "placeholder"
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT)[-512:])
    block[:100] = raw[:100].ljust(100, b"\0")
    return summed(block)


def summed(block) -> bytes:
    block = bytearray(block)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


def member(name, content=b"x", **fields) -> bytes:
    return header(name, len(content), **fields) + padded(content)


def long_name(name: bytes) -> bytes:
    told = name + b"\0"
    return header("././@LongLink", len(told), kind=b"L") + padded(told)


def sized(raw: bytes, name="bad") -> bytes:
    """A header whose size field holds these twelve bytes."""
    block = bytearray(header(name))
    block[124:136] = raw.ljust(12, b"\0")[:12]
    return summed(block)


def pax(**words) -> bytes:
    lines = b""
    for word, value in words.items():
        line = f" {word}={value}\n".encode()
        count = len(line) + len(str(len(line) + 2))
        lines += f"{count}".encode() + line
    return header("pax", len(lines), kind=b"x") + padded(lines)


def crafted() -> dict[str, bytes]:
    """Streams by name; each also offers ``good``, which may be taken."""
    good = member("good", b"fine")
    bad_names = {
        "parent": "..",
        "above": "../x",
        "above later": "a/../../x",
        "absolute": "/etc/passwd",
        "two slashes": "//x",
        "here": "./x",
        "empty part": "a//b",
        "dot": ".",
        "no name": "",
        "windows parent": "..\\..\\x",
        "drive": "C:\\x",
        "line break": "a\nb",
        "escape": "a\x1b[31mb",
        "backwards": "a\u202egpj.exe",
        "no text": b"a\xff\xfeb",
        "delete": "a\x7fb",
        "folder's name": "a/",
        "nul": b"a\0b",
        "only spaces and dots": "a/. /..",
        "bell": "a\x07b",
        "zero width": "a\u200bb",
    }
    kinds = {
        "link to the root": (b"2", "/"),
        "link to a secret": (b"2", "/etc/shadow"),
        "link upwards": (b"2", "../../.."),
        "link to itself": (b"2", "bad"),
        "hard link": (b"1", "/etc/passwd"),
        "hard link to the good": (b"1", "good"),
        "pipe": (b"6", ""),
        "terminal": (b"3", ""),
        "disk": (b"4", ""),
        "folder": (b"5", ""),
        "reserved": (b"7", ""),
        "sparse": (b"S", ""),
        "next volume": (b"M", ""),
        "volume's name": (b"V", ""),
        "global words": (b"g", ""),
        "long link": (b"K", ""),
        "unknown": (b"?", ""),
        "solaris": (b"X", ""),
    }
    found = {f"name: {name}": member(word, b"bad") + good + END for name, word in bad_names.items()}
    found |= {
        f"kind: {name}": header("bad", kind=kind, linkname=link) + good + END
        for name, (kind, link) in kinds.items()
    }
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../x", bytes(1_000_000))
    return found | {
        "long name upwards": long_name(b"a/" * 60 + b"../" * 70 + b"etc/passwd") + good + END,
        "long name without end": header("././@LongLink", 1 << 33, kind=b"L") + good + END,
        "long name twice": long_name(b"../a") + long_name(b"../b") + good + END,
        "long name of nothing": long_name(b"") + good + END,
        "words that move a file": pax(path="../../etc/passwd") + good + END,
        "words that grow a file": pax(size=1 << 40) + good + END,
        "size without end": sized(b"\x80" + bytes(3) + struct.pack(">Q", 1 << 60)) + good + END,
        "negative size": sized(b"\xff" * 12) + good + END,
        "size of no number": sized(b"9z9z9z9z") + good + END,
        "size of eight gigabytes": sized(b"77777777777") + good + END,
        "more than it says": header("bad", 5) + b"longer than it says" * 100 + END,
        "less than it says": header("bad", 5000) + padded(b"short") + END,
        "cut in a header": good + header("bad")[:100],
        "cut in a file": header("bad", 4000) + b"x" * 1000,
        "no end": good * 3,
        "nothing": b"",
        "one empty block": bytes(512),
        "wrong sum": b"Z" + header("bad")[1:] + good + END,
        "too many": b"".join(member(f"{number}", b"") for number in range(2000)) + END,
        "too many links": b"".join(
            header(f"{number}", kind=b"2", linkname="/") for number in range(3000)
        )
        + END,
        "the same name again": good + member("good", b"other") + END,
        "too large": member("bad", bytes(3_000_000)) + good + END,
        "too large together": b"".join(member(f"{n}", bytes(900_000)) for n in range(9)) + END,
        "packed bomb": gzip.compress(bytes(20_000_000)),
        "other packed bomb": packed.getvalue(),
        "noise": random.Random(7).randbytes(100_000),
        "words after the end": good + END + b"x" * 50_000,
        "rights of its owner": member("good", b"fine", mode=0o6777, uid=0, gid=0) + END,
    }


def mutated(count: int, *, seed: int) -> dict[str, bytes]:
    """Good streams with bytes changed; half of them believable again by their first sum."""
    chance = random.Random(seed)
    whole = member("good", b"fine") + long_name(b"n" * 150) + member("n", b"y" * 600) + END
    found = {}
    for number in range(count):
        stream = bytearray(whole)
        for _ in range(chance.randint(1, 8)):
            stream[chance.randrange(len(stream))] = chance.randrange(256)
        if number % 2:
            stream[:512] = summed(stream[:512])
        if number % 5 == 0:
            del stream[chance.randrange(len(stream)) :]
        found[f"mutated {number}"] = bytes(stream)
    return found


def frames(*, count: int, seed: int) -> dict[str, bytes]:
    """What a supervisor may say in place of an answer; ``@ID@`` is the request's."""
    said = {
        "no json": b"hello there\n",
        "no object": b"[]\nnull\n7\n",
        "no type": b"{}\n",
        "unknown type": b'{"type":"surrender","id":"@ID@"}\n',
        "another's": _data(b"x", ident=b"0"),
        "another's between": _data(b"x") + _data(b"x", ident=b"0") + _done(b"xx"),
        "number for a name": b'{"type":"data","id":1,"length":1}\nx',
        "old form": b'{"type":"data","id":"@ID@","seq":0,"b64":"eA=="}\n',
        "no length": b'{"type":"data","id":"@ID@"}\nx' + _done(b"x"),
        "length of nothing": _said(b"0") + _done(b""),
        "negative length": _said(b"-1") + b"x" + _done(b"x"),
        "huge length": _said(b"9223372036854775807") + b"x" * 100_000,
        "length just too long": _said(b"262145") + b"x" * 262_145,
        "endless length": _said(b"9" * 5000),
        "length of no number": _said(b"NaN"),
        "length of text": _said(b'"1"') + b"x",
        "half a byte": _said(b"1.5") + b"xx",
        "fewer bytes": _said(b"100") + b"x" * 99,
        "fewer bytes and an end": _said(b"100") + b"x" * 50 + _done(b"x" * 50),
        "more bytes": _said(b"10") + b"x" * 11 + b"\n" + _done(b"x" * 11),
        "an end that is swallowed": _said(b"262144") + b"x" * 10 + _done(b"x" * 10),
        "an end inside": _said(b"30") + b"x" * 10 + _done(b"x" * 10),
        "wrong sum": _data(b"abc") + _done(b"abd"),
        "wrong size": _data(b"abc") + _done(b"abcd"),
        "no sum": _data(b"abc") + b'{"type":"done","id":"@ID@","size":3}\n',
        "nothing at all": _done(b"x"),
        "data after the end": _data(b"x") + _done(b"y") + _data(b"x"),
        "without end": _data(b"x" * 200_000),
        "without end, in small": _data(b"x" * 40),
        "without end, no line": b"x" * 100_000,
        "an end of nothing": b'{"type":"exit","id":"@ID@","code":0}\n',
        "output of nothing": b'{"type":"out","id":"@ID@","fd":1,"seq":0,"length":1}\nx',
        "greeting again": b'{"type":"hello","v":2,"pid":1,"uid":0,"python":"3"}\n',
        "too deep": b"[" * 200_000 + b"\n",
        "too deep object": b'{"a":' * 100_000 + b"\n",
        "a long line": b"x" * 3_000_000 + b"\n",
        "a line without end": b"x" * 3_000_000,
        "more than asked for": _data(b"A" * 150_000) * 12,
        "heartbeats without end": b'{"type":"heartbeat"}\n' * 20_000,
        "no text": b'{"type":"data","id":"\xff\xfe"}\n',
        "half a character": b'{"type":"data","id":"\\ud800"}\n',
        "unknown refusal": b'{"type":"done","id":"@ID@","size":0,"crc32":0,"rejected":[["x","y"]]}\n',
        "refusal of no list": b'{"type":"done","id":"@ID@","size":0,"crc32":0,"rejected":7}\n',
        "a fault": b'{"type":"fault","detail":"what?"}\n',
        "zeros": bytes(100_000) + b"\n",
    }
    chance = random.Random(seed)
    words = [b'"', b"{", b"}", b"[", b"]", b":", b",", b"null", b"-1", b"1e999", b"\\u0000", b"\n"]
    words += [b'"type"', b'"data"', b'"id"', b'"@ID@"', b'"length"', b'"done"', b"0", b" "]
    for number in range(count):
        noise = b"".join(chance.choice(words) for _ in range(chance.randint(1, 60)))
        said[f"generated {number}"] = noise + b"\n" if number % 2 else _garbled(chance)
    return said


def _said(length: bytes, *, ident: bytes = b"@ID@") -> bytes:
    return b'{"type":"data","id":"%s","length":%s}\n' % (ident, length)


def _data(body: bytes, *, ident: bytes = b"@ID@") -> bytes:
    return _said(b"%d" % len(body), ident=ident) + body


def _done(whole: bytes) -> bytes:
    told = (len(whole), zlib.crc32(whole))
    return b'{"type":"done","id":"@ID@","size":%d,"crc32":%d}\n' % told


def _garbled(chance: random.Random) -> bytes:
    """A good answer in a few pieces, with something cut out, put in, doubled or changed."""
    bodies = [chance.randbytes(chance.choice((1, 10, 1000, 70_000))) for _ in range(3)]
    parts = [*map(_data, bodies), _done(b"".join(bodies))]
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(parts))
        part = bytearray(parts[at])
        place = chance.randrange(min(len(part), 60))
        match chance.randrange(5):
            case 0:
                del part[place : place + chance.randint(1, 40)]
            case 1:
                part[place:place] = chance.randbytes(chance.randint(1, 40))
            case 2:
                part[place] = chance.randrange(256)
            case 3:
                part += part[:place]
            case 4:
                parts[at:at] = [parts[chance.randrange(len(parts))]]
                continue
        parts[at] = part
    return b"".join(parts)


def paths(count: int, *, seed: int) -> list[str]:
    """Names of files, most of which lead out of the workspace if anybody believes them."""
    chance = random.Random(seed)
    parts = ["..", ".", "", "etc", "passwd", "...", "..\\", "%2e%2e", "a", "link", "\u2024\u2024"]
    parts += [
        "\uff0e\uff0e",
        "..\u200b",
        ".. ",
        "~",
        "~root",
        "$HOME",
        "C:",
        "\\\\host",
        "-rf",
        "*",
    ]
    parts += ["x" * 255, "x" * 256, "\u202e", "con", "nul", "\x01", "\x7f", "\ud800", "é", "🙂"]
    found = ["", "/", "//", ".", "..", "../..", "/etc/passwd", "/proc/self/environ", "/proc/1/root"]
    found += [
        "/opt/aos/sbx.py",
        "/run/aos/x",
        "/dev/shm/x",
        "/var/tmp/x",
        "link/passwd",
        "link",
        "a\0b",
    ]
    found += ["/proc/self/fd/0", "/dev/stdin", "out/../../etc/passwd", "x/" * 40, "x/" * 3000]
    while len(found) < count:
        path = "/".join(chance.choice(parts) for _ in range(chance.randint(1, 8)))
        found.append(("/" if chance.random() < 0.3 else "") + path)
    return found
