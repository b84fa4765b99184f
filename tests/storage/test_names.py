import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.names import to_path, to_text

BYTES = st.binary(min_size=1, max_size=12).filter(lambda name: b"\0" not in name)


@given(BYTES)
def test_any_name_of_the_file_system_comes_back_and_is_valid_text(name):
    path = os.fsdecode(name)
    text = to_text(path)
    text.encode("utf-8")
    assert os.fsencode(to_path(text)) == name


@given(BYTES, BYTES)
def test_two_names_never_share_a_spelling(one, other):
    same = to_text(os.fsdecode(one)) == to_text(os.fsdecode(other))
    assert same == (one == other)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("nai\u0308ve.png", "nai\u0308ve.png"),
        ("two\nlines.png", "two\nlines.png"),
        (os.fsdecode(b"caf\xe9.png"), r"caf\xe9.png"),
        (r"caf\xe9.png", r"caf\\xe9.png"),
    ],
)
def test_spellings(path, text):
    assert to_text(path) == text
