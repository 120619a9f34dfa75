"""How differently a head writes the words of one concept: what reaches the picture if they get equal attention."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def value_contrast(values: torch.Tensor, out: torch.Tensor, numbers: Sequence[int]) -> torch.Tensor:
    """Root mean square, over a concept's words, of |W_O,h (V_h(word) - mean of V_h over these words)|: [N, heads].

    ``values``   [W, heads, d], V_h of every word, concept by concept.
    ``out``      [C, heads, d], the columns of the output projection that belong to each head.
    ``numbers``  how many of the W words each of the N concepts has.

    |W_O,h z|^2 = z^T (W_O,h^T W_O,h) z, so that what heads write [W, heads, C] is never formed: d is much smaller
    than C. Its plain form stands in the test.
    """
    gram = torch.einsum("chd,che->hde", out, out)
    centred = torch.cat([words - words.mean(dim=0) for words in values.split(list(numbers))]).transpose(0, 1)
    squares = ((centred @ gram) * centred).sum(dim=-1)
    return torch.stack([words.mean(dim=-1) for words in squares.split(list(numbers), dim=-1)]).clamp(min=0).sqrt()
