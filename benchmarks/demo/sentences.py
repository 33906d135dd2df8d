"""Sentences that a document could contain, filled from a seed: names, dates, prices, numbers, codes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

_TEMPLATES = (
    "{first} {last} moved the meeting to {weekday}, {day} {month}.",
    "Invoice {code}: {price} is due within {small} days.",
    "Flight {flight} to {city} leaves gate {gate} at {time}.",
    "Please water the {plant} before you travel to {city}.",
    "Room {room} is booked for {first} from {time} to {time2}.",
    "The {animal} slept under the {thing} until {month}.",
    "Order {code} contains {small} boxes of {goods}.",
    "Call {first} {last} on {phone} after {time}.",
    "{city}, {day} {month} {year}: light rain, {small} degrees.",
    "Whoever finds the {thing} may keep the {goods}.",
    "Chapter {small}. The {animal} returns to {city}.",
    "{first} paid {price} for {small} kilos of {goods}.",
    "Train {small} stops at {city} and {city2} only.",
    "Do not open the {thing} before {weekday} morning!",
    "Meter reading on {day} {month}: {phone} units.",
    "Dear {first}, thank you for the {goods} and the {plant}.",
    "Is the {thing} from {year} still for sale at {price}?",
    "{last} & {last2}, {room} {city} Road, founded {year}",
    "Our {weekday} class reads about the {animal} of {city}.",
    "Total weight: {small}.{day} kg ({goods}, {small} pieces)",
    "Ticket {code} - row {gate}, {weekday} at {time}",
    '"Where is my {thing}?" asked {first} {last}.',
    "{first}'s {animal} weighs {small}.5 kg since {month}.",
    "Tax for {year}: {price}, payable to {last} & Sons.",
)  # fmt: skip

_WORDS = {
    "first": (
        "Amara",
        "Bruno",
        "Chiara",
        "Dmitri",
        "Elif",
        "Fergus",
        "Greta",
        "Hugo",
        "Ines",
        "Jonas",
        "Kavya",
        "Luca",
    ),
    "last": ("Abbott", "Brennan", "Castillo", "Dvorak", "Eriksen", "Fontaine", "Gallagher", "Hoffmann", "Ivanova"),
    "city": ("Bergen", "Cardiff", "Dresden", "Evora", "Fukuoka", "Geneva", "Halifax", "Innsbruck", "Jaipur", "Kyiv"),
    "weekday": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "month": ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October"),
    "plant": ("basil", "tomato", "orchid", "lemon tree", "fern", "cactus", "rosemary"),
    "animal": ("otter", "badger", "heron", "grey fox", "tortoise", "owl", "hedgehog", "young lynx"),
    "thing": ("piano", "green door", "wardrobe", "suitcase", "bridge", "lantern", "old clock", "red kettle"),
    "goods": ("walnuts", "candles", "olive oil", "pencils", "honey", "wool", "apricots", "copper wire"),
}


def sentence(random: Random) -> str:
    """One sentence; the same generator state gives the same sentence."""
    pick = {name: random.choice(words) for name, words in _WORDS.items()}
    pick |= {f"{name}2": random.choice([w for w in _WORDS[name] if w != pick[name]]) for name in ("last", "city")}
    pick |= {
        "day": str(random.randint(1, 28)),
        "year": str(random.randint(1861, 2029)),
        "small": str(random.randint(2, 48)),
        "time": f"{random.randint(6, 12):02d}:{random.choice((5, 15, 20, 30, 45)):02d}",
        "time2": f"{random.randint(13, 22)}:{random.choice((0, 10, 25, 40, 50)):02d}",
        "price": f"{random.choice(('$', 'EUR ', 'CHF '))}{random.randint(100_000, 999_999) / 100:,.2f}",
        "phone": f"{random.randint(200, 989)} {random.randint(1000, 9999)}",
        "flight": f"{random.choice(('BA', 'LH', 'SK', 'QF'))}{random.randint(101, 2999)}",
        "gate": f"{random.choice('ABCDEF')}{random.randint(1, 59)}",
        "room": str(random.randint(101, 948)),
        "code": f"{random.choice('KMRTX')}{random.choice('HNPZ')}-{random.randint(1000, 99999)}",
    }
    return random.choice(_TEMPLATES).format_map(pick)
