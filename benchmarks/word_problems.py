"""Word problems of our own, in two and three steps: made under a seed, from story forms, with whole numbers.

    python benchmarks/word_problems.py > problems.jsonl

Each has the question X, its answer, the number of steps, and the form of the story. The programs and the measurements
that use them are in reasoning.py.
"""

import json
import random

NAMES = ("Anna", "Ben", "Chloe", "David", "Emma", "Felix", "Grace", "Hugo", "Ines", "Jonas", "Klara", "Liam")
SEED, EACH = 2026, 4


def shopping(draw, one, other):
    count, price = draw(3, 9), draw(2, 9)
    note = next(note for note in (20, 50, 100) if note > count * price)
    question = (
        f"{one} buys {count} notebooks. Each notebook costs {price} dollars. {one} pays with a {note}-dollar note."
        " How many dollars of change does the shop give back?"
    )
    return question, note - count * price


def bus(draw, one, other):
    start, off, on = draw(20, 45), draw(5, 15), draw(3, 14)
    question = (
        f"A bus leaves the station with {start} passengers. At the first stop {off} passengers get off and {on} get on."
        " How many passengers are on the bus then?"
    )
    return question, start - off + on


def sharing(draw, one, other):
    friends, trays = draw(3, 8), draw(2, 6)
    each = friends * draw(2, 5)
    question = (
        f"{one} bakes {trays} trays of {each} cookies. {one} gives all of them to {friends} friends, and each friend"
        " gets the same number. How many cookies does each friend get?"
    )
    return question, trays * each // friends


def saving(draw, one, other):
    start, weekly, weeks = draw(12, 60), draw(4, 15), draw(5, 12)
    question = (
        f"{one} has {start} dollars and saves {weekly} dollars every week."
        f" How many dollars does {one} have after {weeks} weeks?"
    )
    return question, start + weekly * weeks


def parking(draw, one, other):
    floors, spaces, taken = draw(3, 7), draw(15, 40), draw(20, 44)
    question = (
        f"A car park has {floors} floors with {spaces} spaces on each floor. {taken} spaces are taken."
        " How many spaces are free?"
    )
    return question, floors * spaces - taken


def farm(draw, one, other):
    hens, eggs, price = draw(6, 12), draw(2, 4), draw(2, 5)
    eaten = draw(3, hens)
    question = (
        f"{one} has {hens} hens, and each hen lays {eggs} eggs a week. {one} eats {eaten} of the eggs each week and"
        f" sells the others for {price} dollars each. How many dollars does {one} earn in a week?"
    )
    return question, (hens * eggs - eaten) * price


def reading(draw, one, other):
    first, more = draw(14, 35), draw(5, 15)
    pages = 3 * first + more + draw(20, 90)
    question = (
        f"A book has {pages} pages. {one} reads {first} pages on Monday, twice as many on Tuesday, and {more} pages on"
        " Wednesday. How many pages are left to read?"
    )
    return question, pages - 3 * first - more


def garden(draw, one, other):
    rows, plants, fruits = draw(4, 8), draw(5, 9), draw(3, 8)
    dead = draw(2, rows)
    question = (
        f"{one} plants {rows} rows of tomatoes with {plants} plants in each row. {dead} plants die. Each of the others"
        f" grows {fruits} tomatoes. How many tomatoes does {one} get?"
    )
    return question, (rows * plants - dead) * fruits


def driving(draw, one, other):
    speeds, hours = (draw(5, 12) * 10, draw(3, 7) * 5), (draw(2, 5), draw(2, 4))
    question = (
        f"{one} drives for {hours[0]} hours at {speeds[0]} kilometres an hour, and then cycles for {hours[1]} hours at"
        f" {speeds[1]} kilometres an hour. How many kilometres does {one} travel in all?"
    )
    return question, speeds[0] * hours[0] + speeds[1] * hours[1]


def marbles(draw, one, other):
    own, times = draw(6, 20), draw(2, 5)
    lost = draw(2, own)
    question = (
        f"{one} has {own} marbles. {other} has {times} times as many marbles as {one}. Then {other} loses {lost}."
        " How many marbles do the two have together now?"
    )
    return question, own + times * own - lost


FORMS = {2: (shopping, bus, sharing, saving, parking), 3: (farm, reading, garden, driving, marbles)}


def problems(seed=SEED, each=EACH):
    """Rows, those of two steps first; the same ones under the same seed."""
    numbers = random.Random(seed)
    rows = []
    for steps, forms in FORMS.items():
        for form in forms:
            for _ in range(each):
                question, answer = form(numbers.randint, *numbers.sample(NAMES, 2))
                rows.append({"X": question, "answer": answer, "steps": steps, "form": form.__name__})
    return rows


if __name__ == "__main__":
    for row in problems():
        print(json.dumps(row))
