"""The words of the embedded model, and the combinations that its training data never shows.

Held-out combinations measure whether the model composes what it has learnt: it has seen "cat" and "red background" many
times, but never together.  The rules are arithmetic on the order of the tables below, so that order must not change.
"""

from __future__ import annotations

from dataclasses import dataclass

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 38, 38), "orange": (245, 130, 32), "yellow": (250, 208, 40), "green": (46, 160, 67),
    "cyan": (64, 200, 220), "blue": (40, 90, 220), "purple": (135, 60, 190), "pink": (245, 130, 180),
    "brown": (125, 78, 45), "black": (28, 28, 30), "white": (245, 245, 245), "gray": (140, 142, 148),
}  # fmt: skip
"""sRGB, 0 to 255.  The order counts for the held-out rules."""

COLOUR_NAMES = tuple(COLOURS)


@dataclass(frozen=True)
class Drawing:
    """Where an object's two finishes are found: a code point of the 3D package, an icon name of the flat one."""

    code: str
    icon: str


# The first twenty are those of the model's first edition, in its order.
DRAWINGS: dict[str, Drawing] = {
    name: Drawing(code, icon)
    for name, code, icon in (
        ("cat", "1f431", "cat-face"),
        ("panda", "1f43c", "panda"),
        ("frog", "1f438", "frog"),
        ("penguin", "1f427", "penguin"),
        ("fish", "1f420", "tropical-fish"),
        ("butterfly", "1f98b", "butterfly"),
        ("dinosaur", "1f996", "t-rex"),
        ("apple", "1f34e", "red-apple"),
        ("pizza", "1f355", "pizza"),
        ("mushroom", "1f344", "mushroom"),
        ("tree", "1f333", "deciduous-tree"),
        ("tulip", "1f337", "tulip"),
        ("star", "2b50", "star"),
        ("heart", "2764-fe0f", "red-heart"),
        ("car", "1f697", "automobile"),
        ("rocket", "1f680", "rocket"),
        ("house", "1f3e0", "house"),
        ("balloon", "1f388", "balloon"),
        ("umbrella", "2602-fe0f", "umbrella"),
        ("robot", "1f916", "robot"),
        ("dog", "1f436", "dog-face"),
        ("fox", "1f98a", "fox"),
        ("pig", "1f437", "pig-face"),
        ("rabbit", "1f430", "rabbit-face"),
        ("lion", "1f981", "lion"),
        ("elephant", "1f418", "elephant"),
        ("owl", "1f989", "owl"),
        ("whale", "1f433", "spouting-whale"),
        ("crab", "1f980", "crab"),
        ("turtle", "1f422", "turtle"),
        ("bee", "1f41d", "honeybee"),
        ("unicorn", "1f984", "unicorn"),
        ("banana", "1f34c", "banana"),
        ("lemon", "1f34b", "lemon"),
        ("strawberry", "1f353", "strawberry"),
        ("watermelon", "1f349", "watermelon"),
        ("grapes", "1f347", "grapes"),
        ("pineapple", "1f34d", "pineapple"),
        ("carrot", "1f955", "carrot"),
        ("hamburger", "1f354", "hamburger"),
        ("donut", "1f369", "doughnut"),
        ("cupcake", "1f9c1", "cupcake"),
        ("cake", "1f382", "birthday-cake"),
        ("ice cream", "1f366", "soft-ice-cream"),
        ("palm tree", "1f334", "palm-tree"),
        ("cactus", "1f335", "cactus"),
        ("sunflower", "1f33b", "sunflower"),
        ("rose", "1f339", "rose"),
        ("leaf", "1f341", "maple-leaf"),
        ("sun", "2600-fe0f", "sun"),
        ("moon", "1f319", "crescent-moon"),
        ("planet", "1fa90", "ringed-planet"),
        ("cloud", "2601-fe0f", "cloud"),
        ("rainbow", "1f308", "rainbow"),
        ("snowman", "26c4", "snowman-without-snow"),
        ("fire", "1f525", "fire"),
        ("bus", "1f68c", "bus"),
        ("truck", "1f69a", "delivery-truck"),
        ("airplane", "2708-fe0f", "airplane"),
        ("sailboat", "26f5", "sailboat"),
        ("train", "1f682", "locomotive"),
        ("helicopter", "1f681", "helicopter"),
        ("castle", "1f3f0", "castle"),
        ("guitar", "1f3b8", "guitar"),
        ("bell", "1f514", "bell"),
        ("key", "1f511", "key"),
        ("crown", "1f451", "crown"),
        ("gift", "1f381", "wrapped-gift"),
        ("clock", "23f0", "alarm-clock"),
        ("book", "1f4d5", "closed-book"),
        ("teddy bear", "1f9f8", "teddy-bear"),
        ("soccer ball", "26bd", "soccer-ball"),
        ("hat", "1f3a9", "top-hat"),
        ("diamond", "1f48e", "gem-stone"),
        ("ghost", "1f47b", "ghost"),
        ("skull", "1f480", "skull"),
        ("pumpkin", "1f383", "jack-o-lantern"),
        ("smiley", "1f600", "grinning-face"),
        ("teapot", "1fad6", "teapot"),
        ("chair", "1fa91", "chair"),
        ("backpack", "1f392", "backpack"),
    )
}

SHAPES = ("circle", "square", "triangle")
"""Drawn by the program; always of a stated colour, except in line art."""

OBJECTS = (*DRAWINGS, *SHAPES)

RECOLOURABLE = (
    "cat", "fish", "butterfly", "dinosaur", "apple", "mushroom", "tulip", "star", "heart", "car", "balloon", "umbrella",
    "book", "backpack", "teapot", "chair", "rose", "bell", "key", "crab", "diamond", "leaf", "guitar",
    *SHAPES,
)  # fmt: skip
"""Objects with one main hue, which can be exchanged.  The order counts for the held-out rule."""

PLURALS = {
    "fish": "fish", "strawberry": "strawberries", "butterfly": "butterflies", "cactus": "cacti", "fox": "foxes",
    "leaf": "leaves", "bus": "buses", "grapes": "bunches of grapes", "bunny": "bunnies", "puppy": "puppies",
}  # fmt: skip
"""Those that are not the word and an s."""

SYNONYMS: dict[str, tuple[str, ...]] = {
    "cat": ("kitten",), "dog": ("puppy",), "rabbit": ("bunny",), "dinosaur": ("dino",), "turtle": ("tortoise",),
    "car": ("automobile", "auto"), "airplane": ("plane", "aeroplane"), "rocket": ("spaceship",),
    "train": ("locomotive",), "house": ("home",), "umbrella": ("parasol",), "robot": ("android",),
    "mushroom": ("toadstool",), "hamburger": ("burger",), "donut": ("doughnut",), "gift": ("present",),
    "smiley": ("smiley face",), "fire": ("flame",),
    "diamond": ("gem",), "sailboat": ("boat",), "truck": ("lorry",), "teddy bear": ("teddy",),
    "red": ("crimson", "scarlet"), "blue": ("azure", "navy"), "purple": ("violet",), "pink": ("magenta",),
    "cyan": ("teal", "turquoise", "aqua"), "yellow": ("golden",), "gray": ("grey", "grey", "silver"),
    "green": ("lime", "emerald"),
}  # fmt: skip
"""Other words for the same thing, of objects and colours; a small vocabulary makes no difference between them."""

SCENES: dict[str, tuple[str, ...]] = {
    "grass": ("on grass", "on the grass"),
    "desert": ("in the desert",),
    "night": ("at night",),
    "space": ("in space",),
    "beach": ("on the beach", "at the beach"),
    "snow": ("in the snow",),
    "underwater": ("underwater",),
    "sunset": ("at sunset",),
}

STYLES: dict[str, tuple[str, ...]] = {
    "3d": ("3d style", "3d render", "3d"),
    "flat": ("flat style", "flat vector"),
    "pixel": ("pixel art", "pixel art style"),
    "line": ("line art", "pencil drawing", "sketch"),
}

PLACES = {"left": "on the left", "right": "on the right", "top": "at the top", "bottom": "at the bottom"}
SIZES = {"small": ("small", "small", "tiny", "little"), "big": ("big", "large", "huge")}
NUMBERS = {2: "two", 3: "three", 4: "four"}


def article(words: str) -> str:
    """The words with "a" or "an" in front; "grapes" stands alone.

    >>> article("orange car"), article("unicorn"), article("grapes")
    ('an orange car', 'a unicorn', 'grapes')
    """
    if words.endswith("grapes"):
        return words
    return f"{'an' if words[0] in 'aeiou' and not words.startswith('uni') else 'a'} {words}"


def plural(noun: str) -> str:
    """The noun in the plural.

    >>> plural("butterfly"), plural("car")
    ('butterflies', 'cars')
    """
    return PLURALS.get(noun, f"{noun}s")


def held_out_backgrounds() -> frozenset[tuple[str, str]]:
    """(object, background colour) pairs never in the data, two for each object."""
    return frozenset((name, COLOUR_NAMES[(5 * i + offset) % 12]) for i, name in enumerate(OBJECTS) for offset in (2, 7))


def held_out_colours() -> frozenset[tuple[str, str]]:
    """(object, its own colour) pairs never in the data, one for each object that can be recoloured."""
    return frozenset((name, COLOUR_NAMES[(7 * i + 1) % 12]) for i, name in enumerate(RECOLOURABLE))


def held_out_counts() -> frozenset[tuple[str, int]]:
    """(object, count) pairs never in the data, one for every ninth object."""
    return frozenset((name, 2 + i % 3) for i, name in enumerate(OBJECTS[4::9]))


def held_out_pairs() -> frozenset[frozenset[str]]:
    """Pairs of different objects never together in a picture, one for each object with the one 13 places on."""
    return frozenset(frozenset((name, OBJECTS[(i + 13) % len(OBJECTS)])) for i, name in enumerate(OBJECTS))
