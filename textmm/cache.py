"""What a decoder remembers of pictures and of the words said about them so far."""

# B pictures, H heads, S words remembered, Q words of a step, D width

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from textmm.layers import KeysValues


class WordMemory:
    """Keys and values of one layer's words, in room that doubles when it is full."""

    def __init__(self) -> None:
        self._room: KeysValues | None = None
        self._length = 0

    def append(self, new: KeysValues) -> KeysValues:
        """All keys and values [B, H, S + Q, D/H] with the new ones [B, H, Q, D/H] at their end."""
        start, end = self._length, self._length + new[0].shape[2]
        self._length = end
        if self._room is None:  # nothing is copied where words come once, as in training
            self._room = new
            return new
        if end > self._room[0].shape[2]:
            self._room = (_grown(self._room[0], start, 2 * end), _grown(self._room[1], start, 2 * end))
        keys, values = self._room
        keys[:, :, start:end] = new[0]
        values[:, :, start:end] = new[1]
        return keys[:, :, :end], values[:, :, :end]

    def keep(self, rows: Tensor) -> None:
        if self._room is not None:
            self._room = (self._room[0][rows], self._room[1][rows])


class Cache:
    """Keys and values of B pictures, and of the words about each of them, those of all its beams side by side.

    A picture's beams share its keys and values, and which words are a beam's own is said by a mask (`seen` of a
    decoder's step). So beams change places by changing rows of a small mask, and no key or value ever moves.
    """

    def __init__(self, image: Sequence[KeysValues], *, word_layers: int) -> None:
        """`image`: of each layer that asks the picture. `word_layers`: how many attend to words."""
        self.image = list(image)
        self.words = [WordMemory() for _ in range(word_layers)]
        self.length = 0
        """S"""

    def visible(self, words: int, seen: Tensor | None) -> Tensor | None:
        """What to give the attention of a step of so many words as its mask, and count them as remembered.

        `seen` [B, Q, S + Q] is True where a word may be seen and becomes 0 there, -inf elsewhere: [B, 1, Q, S + Q].
        None stays None: words that come first, each seeing those before it, or one word that sees all.
        """
        if seen is None and words > 1 and self.length:
            raise ValueError(f"{words} words after {self.length} need `seen`: which of those each may see")
        self.length += words
        if seen is None:
            return None
        mask = self.image[0][0].new_zeros(seen.shape)
        return mask.masked_fill_(~seen, float("-inf"))[:, None]

    def keep(self, pictures: Tensor) -> None:
        """Forget all but these pictures: rows, int64 [B'], in this order."""
        self.image = [(keys[pictures], values[pictures]) for keys, values in self.image]
        for memory in self.words:
            memory.keep(pictures)


def _grown(old: Tensor, used: int, capacity: int) -> Tensor:
    batch, heads, _, width = old.shape
    room = old.new_empty(batch, capacity, heads, width).transpose(1, 2)  # a word's heads beside each other
    room[:, :, :used] = old[:, :, :used]
    return room
