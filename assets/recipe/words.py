"""Word material for the task generators: states, everyday nouns, and invented words."""

from __future__ import annotations

import random

STATES = """Alabama Alaska Arizona Arkansas California Colorado Connecticut Delaware Florida Georgia Hawaii Idaho
Illinois Indiana Iowa Kansas Kentucky Louisiana Maine Maryland Massachusetts Michigan Minnesota Mississippi Missouri
Montana Nebraska Nevada New_Hampshire New_Jersey New_Mexico New_York North_Carolina North_Dakota Ohio Oklahoma Oregon
Pennsylvania Rhode_Island South_Carolina South_Dakota Tennessee Texas Utah Vermont Virginia Washington West_Virginia
Wisconsin Wyoming""".split()
STATES = [state.replace("_", " ") for state in STATES]

NOUNS = """apple apricot avocado banana blackberry blueberry cherry coconut cranberry fig grape grapefruit lemon lime
mango melon nectarine orange papaya peach pear pineapple plum raspberry strawberry watermelon carrot potato tomato onion
garlic pepper cucumber lettuce spinach broccoli cabbage celery pumpkin mushroom bread butter cheese yogurt coffee tea
sugar honey pasta pizza soup salad sandwich chocolate cookie pancake cat dog horse rabbit mouse elephant giraffe lion
tiger bear wolf fox monkey kangaroo koala panda zebra camel donkey sheep goat chicken duck goose turkey eagle falcon
parrot penguin dolphin whale shark salmon octopus turtle lizard snake frog spider butterfly mosquito beetle table chair
window door kitchen bathroom bedroom garden garage ceiling carpet curtain pillow blanket mirror lamp candle bottle
glass spoon knife fork plate bowl kettle oven fridge computer keyboard monitor printer phone camera radio television
battery engine wheel bicycle car truck train plane ship boat subway bridge tunnel road street highway airport station
hospital school university library museum theater restaurant hotel bakery market office factory castle church tower
river lake ocean island mountain valley desert forest meadow beach volcano glacier waterfall cave planet moon star sun
galaxy comet rocket satellite telescope gravity energy light shadow thunder lightning rainbow snow storm winter spring
summer autumn morning evening midnight yesterday tomorrow calendar birthday holiday vacation journey ticket passport
suitcase umbrella jacket sweater trousers shirt shoes socks gloves scarf necklace bracelet diamond silver gold copper
iron steel wood stone paper pencil crayon eraser notebook dictionary newspaper magazine letter envelope stamp poem
novel story song melody guitar piano violin trumpet drum orchestra dancer painter writer teacher doctor nurse lawyer
farmer carpenter engineer scientist philosopher president king queen prince soldier captain pirate wizard dragon
unicorn ghost vampire robot algorithm database compiler variable function network internet website password security
language grammar sentence paragraph question answer problem solution mathematics geometry algebra physics chemistry
biology history geography economics politics democracy justice freedom happiness sadness anger courage wisdom
committee success accommodation bookkeeper parallel necessary occurrence possession assessment millennium embarrass
address balloon coffee letter little hello really tattoo cotton happen rabbit summer tunnel village willow yellow
mississippi tennessee connecticut massachusetts abracadabra onomatopoeia rhythm queue syzygy aardvark bubble
kindness darkness weakness strength breath health wealth growth thought daughter laughter neighbor weight height
eighteen nineteen twenty thirty hundred thousand million quarter half double triple circle square triangle rectangle
pentagon hexagon cylinder sphere pyramid fraction decimal percent average maximum minimum addition equation""".split()
NOUNS = sorted(set(NOUNS))

LETTERS = "abcdefghijklmnopqrstuvwxyz"
_ONSETS = "b c d f g h j k l m n p r s t v w z bl br ch cl cr dr fl fr gl gr pl pr qu sh sl sm sn sp st str sw th tr y".split()
_VOWELS = "a e i o u a e i o ai ea ee io oo ou ie y".split()
_CODAS = ["", "", "", *"b d g k l ll m n nn p r rr s ss t tt x ck ft ld lk mp nd ng nk nt pt rd rk rm rn rt sh sk st th".split()]


def invented_word(rng: random.Random, low: int = 3, high: int = 14) -> str:
    """A lower-case word of `low` to `high` letters that no dictionary needs to know.

    Three kinds, so that spelling cannot lean on English: syllables, uniform letters, and words
    over two to four letters, where repeats make it easy to lose one's place.
    """
    length = rng.randint(low, high)
    kind = rng.random()
    if kind < 0.5:
        word = ""
        while len(word) < length:
            word += rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS)
        return word[:length]
    if kind < 0.75:
        return "".join(rng.choice(LETTERS) for _ in range(length))
    alphabet = rng.sample(LETTERS, rng.randint(2, 4))
    return "".join(rng.choice(alphabet) for _ in range(length))


def word(rng: random.Random, low: int = 3, high: int = 14) -> str:
    """A real or invented lower-case word of `low` to `high` letters."""
    while rng.random() < 0.4:
        candidate = rng.choice(NOUNS)
        if low <= len(candidate) <= high:
            return candidate
    return invented_word(rng, low, high)
