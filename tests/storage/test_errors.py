"""Errors of other libraries are told in one line, whatever they say."""

import pytest

from storage.errors import first_line


@pytest.mark.parametrize(("said", "line"), [("a\nb", "a"), ("\n\nb", "b"), ("", "ValueError")])
def test_the_first_line_of_an_error_is_never_empty(said, line):
    assert first_line(ValueError(said)) == line
