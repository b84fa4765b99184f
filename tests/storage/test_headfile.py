import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import DataError
from storage.headfile import load_head, save_head

WEIGHTS = {"linear.weight": torch.arange(6.0).reshape(2, 3), "linear.bias": torch.tensor([0.5, -1.0])}
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(st.text("xyz", max_size=3), PLAIN, max_size=4))
def test_weights_and_metadata_come_back(tmp_path_factory, metadata):
    path = tmp_path_factory.mktemp("head") / "0.safetensors"
    save_head(path, WEIGHTS, metadata)
    weights, read = load_head(path)
    assert read == metadata
    assert weights.keys() == WEIGHTS.keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in WEIGHTS.items())


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_neither_written_nor_read(tmp_path, value):
    broken = {**WEIGHTS, "linear.bias": torch.tensor([0.5, value])}
    with pytest.raises(ValueError, match=r"linear\.bias"):
        save_head(tmp_path / "a", broken, {})
    assert not (tmp_path / "a").exists()
    (tmp_path / "b").write_bytes(safetensors.torch.save(broken, metadata={"ltdpipe": "{}"}))
    with pytest.raises(DataError, match=r"b holds weights that are not finite: linear\.bias"):
        load_head(tmp_path / "b")
