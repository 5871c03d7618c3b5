"""Whatever a file holds, it is read or refused in one line; `make fuzz` tries 20,000 of each."""

import io
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parsers import PARSERS, attempt

TOKENS = [
    *b"nan inf -inf -1 0 1e400 1e-400 1e38 0x10 1_0 - -- -h --seed 0-99".split(),
    *b"!!timestamp !!bool !!float !!set !!python/object:x &a *a <<: ? | >- dist k1".split(),
    *b".. ../ / \\ # @ ' \" : = , { } [ ]".split(),
    *(b"\0", b" ", b"\t", b"\n", b"\r", b"\x85", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe"),
    *("\u0663".encode(), "\u2028".encode(), "\u00b2".encode()),
    *(b"0-9999999999", b"0-99999999 lr", b"9" * 400, b"[" * 100_000, b'{"a":' * 20_000),
    *(
        b"\0\0\0\0",
        b"\xff\xff\xff\xff",
        b"\x7f\xff\xff\xff",
        b"\x00\x01\x00\x00",
        b"\n@/dev/zero\n",
    ),
]


@st.composite
def damaged(draw, good):
    """A good file, somewhere cut, overwritten or filled."""
    content = good
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        gone = draw(st.sampled_from([0, 1, 4]) | st.integers(0, len(content)))
        new = draw(st.sampled_from(TOKENS) | st.binary(max_size=8))
        content = content[:at] + new + content[at + gone :]
    return content


ANYTHING = (
    st.binary(max_size=400)
    | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace"))
    | st.lists(st.sampled_from(TOKENS), max_size=30).map(b" ".join)
)


@pytest.mark.parametrize("name", PARSERS)
def test_good_files_are_read(name, tmp_path):
    assert attempt(PARSERS[name], PARSERS[name].good, tmp_path)


def found():
    """What was once a traceback: a parser, and the damage to its good file."""

    def exchanged(name, old, new):
        assert old in PARSERS[name].good
        return name, PARSERS[name].good.replace(old, new)

    npy = io.BytesIO()
    with zipfile.ZipFile(npy, "w") as archive:
        archive.writestr("source.npy", "no array")
    yield "intrinsics", b"[" * 100_000
    yield "opt_json", b"[" * 100_000
    yield "ground_truth", npy.getvalue()
    yield exchanged("ground_truth", b"PK\x01\x02", b"PK\x01\x02\x14\x00\x50\x00\x00\x00")
    yield exchanged("mat", b"\x17\x08\x00\x17\x7f", b"\x17\x08\x00\x17\x00")  # a float's bias
    yield "options", b"--split " + b"9" * 400
    yield (
        "intrinsics",
        (
            b'{"fx": 500, "fy": 500, "cx": 320, "cy": 240, "width": 640, "height": '
            + b"9" * 400
            + b"}"
        ),
    )
    yield "options", b"--png\n@/dev/zero\n"
    yield "opencv", b"a: !!timestamp x"
    yield "opencv", b"a: !!bool x"
    yield "opencv", b"!!float"
    yield "split", b"scene 0-9999999 lr\n" * 100


@pytest.mark.parametrize("name, content", list(found()))
def test_what_was_found_is_refused_in_one_line(name, content, tmp_path):
    harmless = name == "opt_json" or content.startswith(b"--split")  # refused later, if at all
    assert attempt(PARSERS[name], content, tmp_path) == harmless


def test_points_that_are_no_numbers_are_left_out(tmp_path):
    bad = np.float32([[np.nan, 0, 0, 0], [9, np.inf, 0, 0], [np.inf, 1, 1, 1]]).tobytes()
    assert attempt(PARSERS["velodyne"], PARSERS["velodyne"].good + bad, tmp_path)


@pytest.mark.parametrize("name", PARSERS)
def test_any_file_is_read_or_refused_in_one_line(name, tmp_path):
    parser = PARSERS[name]
    examples = settings().max_examples

    @settings(max_examples=examples if examples > 100 else 25)
    @given(ANYTHING | damaged(parser.good), st.booleans())
    def check(content, mend):
        attempt(parser, parser.mend(content) if mend else content, tmp_path)

    check()
