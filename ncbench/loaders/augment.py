"""What happens to one clip: drawn once from the clip's key, applied alike to all its frames."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ncbench.loader_card import LoaderCard
from ncbench.loaders.maps import Maps
from ncbench.loaders.mixture import ClipRef, Member
from ncbench.loaders.photometric import Colour, change_colour, draw_colour
from ncbench.loaders.randomness import key_of, uniforms
from ncbench.loaders.spatial import Box, crop_maps, flip_maps, resize_maps, resized_size

_DRAWS = 11  # reverse, flip, scale, top, left, then six for the colour


@dataclass(frozen=True)
class Change:
    """What is done to every frame of a clip, in this order.

    Attributes:
        reverse: Whether the clip runs backwards.
        size: Height and width after resizing.
        box: The window to keep; None keeps all.
        flip: Whether to mirror left to right.
        colour: Change of the picture alone.
    """

    reverse: bool
    size: tuple[int, int]
    box: Box | None
    flip: bool
    colour: Colour

    def changes_pixels(self, size: tuple[int, int]) -> bool:
        """Say whether frames of this size come out as other arrays than they are."""
        return self.size != size or self.box is not None or self.flip or self.colour != Colour()


def draw_change(card: LoaderCard, member: Member, ref: ClipRef, size: tuple[int, int]) -> Change:
    """Draw the change of a clip; a pure function of the seed, the set's name, the pass and the clip.

    Each decision has a number of its own, so that turning one on leaves the others as they were.

    Args:
        card: The settings.
        member: The clip's data set.
        ref: The clip.
        size: Height and width of its frames as stored.

    Returns:
        The change.
    """
    draws = uniforms(key_of(card.seed, "change", member.name, ref.turn, ref.first, ref.step), _DRAWS)
    low, high = card.resize.scale if card.resize else (1.0, 1.0)
    resized = resized_size(size, card.resize, low + (high - low) * float(draws[2]))
    box = None
    if card.crop:
        room = resized[0] - card.crop.height, resized[1] - card.crop.width
        top, left = room[0] // 2, room[1] // 2
        if card.crop.place == "random":
            top, left = int(draws[3] * (room[0] + 1)), int(draws[4] * (room[1] + 1))
        box = Box(top, left, card.crop.height, card.crop.width)
    return Change(
        reverse=bool(draws[0] < member.reverse),
        size=resized,
        box=box,
        flip=bool(draws[1] < card.flip),
        colour=draw_colour(card.photometric, draws[5:]),
    )


def apply_change(maps: Maps, change: Change) -> Maps:
    """Apply a clip's change to one of its frames.

    Args:
        maps: The frame as stored.
        change: From ``draw_change``.

    Returns:
        The changed frame; its arrays may be views.
    """
    changed = resize_maps(maps, change.size)
    if change.box is not None:
        changed = crop_maps(changed, change.box)
    if change.flip:
        changed = flip_maps(changed)
    return replace(changed, image=change_colour(changed.image, change.colour))
