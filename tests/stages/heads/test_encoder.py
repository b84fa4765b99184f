import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_ltd import NAMES
from torch import nn

from stages.heads.ltd import ClassTokenEncoder


def pair(width, heads, dropout):
    """The encoder and torch's layer with the same weights, all of them (biases and norms too) far from their start."""
    plain = nn.TransformerEncoderLayer(width, heads, 4 * width, dropout, activation="gelu", batch_first=True)
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.mul_(2).add_(0.1 * torch.randn_like(parameter))
        # so large that it shows when it is not weighted with the probabilities that dropout left
        plain.self_attn.in_proj_bias[2 * width :] += 2
    ours = ClassTokenEncoder(width, heads, dropout)
    ours.load_state_dict(
        {NAMES[f"encoder.{name}"].removeprefix("encoder."): tensor for name, tensor in plain.state_dict().items()}
    )
    return ours, plain


def encode_plainly(plain, sequences):
    whole = [torch.cat([cls.expand(len(tokens), 1, -1), tokens], dim=1) for cls, tokens in sequences]
    return torch.stack([plain(sequence)[:, 0] for sequence in whole])


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from([1, 2, 4]),
    st.integers(1, 4),
    st.lists(st.integers(1, 6), min_size=1, max_size=3),
    st.integers(1, 5),
)
def test_same_output_and_gradients_as_the_whole_layer(heads, d, lengths, n_images):
    torch.manual_seed(heads + 10 * d)
    width = 4 * heads * d
    ours, plain = (module.double() for module in pair(width, heads, dropout=0.0))
    sequences = [
        (torch.randn(width).double(), torch.randn(n_images, k, width).double().requires_grad_()) for k in lengths
    ]
    weights = torch.randn(len(lengths), n_images, width).double()

    found, expected = ours(sequences), encode_plainly(plain, sequences)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)

    tokens = [tokens for _, tokens in sequences]
    names = dict(plain.named_parameters())
    expected_grads = torch.autograd.grad((expected * weights).sum(), [*names.values(), *tokens])
    by_name = dict(ours.named_parameters())
    ours_in_order = [by_name[NAMES[f"encoder.{name}"].removeprefix("encoder.")] for name in names]
    found_grads = torch.autograd.grad((found * weights).sum(), [*ours_in_order, *tokens])
    for one, other in zip(found_grads, expected_grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


def test_dropout_has_the_distribution_of_the_whole_layer():
    torch.manual_seed(0)
    ours, plain = pair(16, 2, dropout=0.3)
    draws = 40_000
    sequences = [(torch.randn(16), torch.randn(1, 3, 16).expand(draws, -1, -1))]
    with torch.no_grad():
        found, expected = ours(sequences)[0], encode_plainly(plain, sequences)[0]
    spread = expected.std(0)
    assert spread.min() > 0.05  # else there was nothing to compare
    # four standard errors of a difference of two means; the covariance has heavier tails
    assert ((found.mean(0) - expected.mean(0)).abs() / spread).max() < 4 * (2 / draws) ** 0.5
    correlation = (found.T.cov() - expected.T.cov()) / torch.outer(spread, spread)
    assert correlation.abs().max() < 0.035


def test_initialised_as_torchs_layer():
    torch.manual_seed(0)
    ours, plain = ClassTokenEncoder(64, 8, 0.3), nn.TransformerEncoderLayer(64, 8, 256, 0.3)
    ours_by_name = ours.state_dict()
    for name, expected in plain.state_dict().items():
        found = ours_by_name[NAMES[f"encoder.{name}"].removeprefix("encoder.")]
        assert found.shape == expected.shape
        if expected.numel() < 1000 and expected.std() == 0:  # constants: norms and the biases that are 0
            assert torch.equal(found, expected), name
        else:
            assert found.std().item() == pytest.approx(expected.std().item(), rel=0.2), name
            assert found.abs().max().item() == pytest.approx(expected.abs().max().item(), rel=0.1), name
